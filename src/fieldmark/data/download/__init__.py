"""Download published photos: the iNaturalist challenges, and iNaturalist Open Data."""

from fieldmark.data.download.archives import Challenge, fetch_challenge, sizes
from fieldmark.data.download.challenges import CHALLENGES, TERMS
from fieldmark.data.download.http import RetryPolicy
from fieldmark.data.download.open_data import Fetched, fetch_open_data
from fieldmark.data.download.selection import LICENCES, PhotoQuery
from fieldmark.data.readers.inat_tables import SIZES

__all__ = [
    "CHALLENGES",
    "LICENCES",
    "SIZES",
    "TERMS",
    "Challenge",
    "Fetched",
    "PhotoQuery",
    "RetryPolicy",
    "fetch_challenge",
    "fetch_open_data",
    "sizes",
]
