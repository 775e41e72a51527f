"""Photos from where they are published: the iNaturalist challenges, and iNaturalist Open Data."""

from fieldmark.fetch.archives import Challenge, fetch_challenge, sizes
from fieldmark.fetch.challenges import CHALLENGES, TERMS
from fieldmark.fetch.choice import LICENCES, Wanted
from fieldmark.fetch.http import Manners
from fieldmark.fetch.opendata import Fetched, fetch_own
from fieldmark.inat_tables import SIZES

__all__ = [
    "CHALLENGES",
    "LICENCES",
    "SIZES",
    "TERMS",
    "Challenge",
    "Fetched",
    "Manners",
    "Wanted",
    "fetch_challenge",
    "fetch_own",
    "sizes",
]
