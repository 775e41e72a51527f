"""What the routes call: a place in the queue, decoding, the network, and the counting of it all."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from fieldmark.inference.classifier import Classifier
from fieldmark.serving import answers, http_errors, multipart
from fieldmark.serving.batcher import Batches
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.decoders import Decoded, DecoderFailed, Decoders
from fieldmark.serving.http_errors import Refused
from fieldmark.serving.metrics import Metrics
from fieldmark.serving.model import Model
from fieldmark.serving.multipart import Held, Upload
from fieldmark.utils.errors import ImageRejected, InputError

T = TypeVar("T")

_SLOW, _SOON = (
    0.9,
    0.1,
)  # how much of the measured rate is kept, and how much is renewed, at a batch


class Service:
    """One classifier being served.

    Args:
        classifier: what answers.
        config: its limits.
    """

    def __init__(self, classifier: Classifier, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.model = Model(classifier)
        self.decoders = Decoders(
            classifier.views,
            count=config.workers,
            max_pixels=config.max_pixels,
            seconds=config.decode_seconds,
            on_failure=self.metrics.decoder_failures.inc,
        )
        self.batches = Batches(
            self.model.predict,
            size=config.batch,
            coming=lambda: self._decoding,
            measured=self._measured,
        )
        self._held = Held(config.held_bytes)
        self._taken = self._decoding = 0
        self._rate = 10.0  # photos a second, until it has been measured
        self._last = -math.inf  # when a batch was last done
        self.metrics.gauge("fieldmark_queue_photos", "Photos under way.", lambda: self._taken)
        self.metrics.gauge("fieldmark_queue_places", "The most.", lambda: config.queue)
        self.metrics.gauge("fieldmark_held_bytes", "Of bodies held.", lambda: self._held.now)
        self.metrics.gauge("fieldmark_decoders", "That are alive.", lambda: self.decoders.alive)

    async def start(self) -> None:
        """Start the decoders and the network's thread.

        Raises:
            FieldmarkError: a decoder does not start.
        """
        await self.decoders.start()
        self.batches.start()

    async def close(self) -> None:
        """Answer what is waiting, then end."""
        await self.batches.close()
        await self.decoders.close()

    @property
    def ready(self) -> bool:
        """Whether photos can be answered now."""
        return self.decoders.alive > 0 and self.batches.alive

    async def each_photo(
        self, request: Request, answer: Callable[[Upload, Decoded], Awaitable[T]]
    ) -> list[tuple[str, T | Refused]]:
        """The answer for each photo of a request, or its refusal, with the photo's name.

        Raises:
            Refused: the request as a whole: no place, too large, not to be read.
        """
        self._need_places(1)  # before anything is read
        with self._held.body() as share:
            uploads = await multipart.uploads(request, share, self.config)
            with self._places(len(uploads)):
                asking = [asyncio.ensure_future(self._one(each, answer)) for each in uploads]
                try:
                    found = await asyncio.gather(*asking)
                finally:  # one refused for all: the others need no answer any more
                    for task in asking:
                        task.cancel()
        return [(each.name, value) for each, value in zip(uploads, found, strict=True)]

    async def name(self, upload: Upload, photo: Decoded, top: int) -> answers.PhotoAnswer:
        """What the classifier says of one photo."""
        prediction = await self.batches.predict(photo.crops, top)
        self.metrics.photos.labels(prediction.source.replace(" ", "-")).inc()
        return answers.named(upload.name, photo.width, photo.height, prediction)

    async def similar(self, upload: Upload, photo: Decoded, count: int) -> answers.SimilarPhotos:
        """The training photos that most resemble one photo.

        Raises:
            Refused: the classifier keeps none.
        """
        if not self.model.offers().similar:
            raise http_errors.not_offered("similar photos: it keeps none of those it learned from")
        found = await self.batches.call(partial(self.model.similar, photo.crops, count))
        shown = await asyncio.to_thread(self.model.show, found)
        return answers.SimilarPhotos(name=upload.name, similar=shown)

    async def heat_map(
        self, _upload: Upload, photo: Decoded, taxon_id: str | None
    ) -> answers.HeatMap:
        """Where in one photo the network saw what speaks for a label.

        Raises:
            Refused: there is no such label, or the network has no map.
        """
        if taxon_id is not None and taxon_id not in self.model.classifier.taxonomy:
            message = "The classifier has no class with this taxon_id."
            raise Refused(400, "bad-parameter", message)
        try:
            return await self.batches.call(partial(self.model.heat_map, photo, taxon_id))
        except InputError as error:
            raise http_errors.not_offered("heat map") from error

    async def _one(
        self, upload: Upload, answer: Callable[[Upload, Decoded], Awaitable[T]]
    ) -> T | Refused:
        try:
            photo = await self._decode(upload.data)
        except Refused as refused:
            self.metrics.photos.labels(refused.code).inc()
            return refused
        return await answer(upload, photo)

    async def _decode(self, data: bytes) -> Decoded:
        start = time.perf_counter()
        self._decoding += 1
        try:
            return await self.decoders.decode(data)
        except ImageRejected as rejected:
            raise http_errors.of_photo(rejected, self.config.max_pixels) from rejected
        except DecoderFailed as error:
            raise http_errors.decoder_failed() from error
        finally:
            self._decoding -= 1
            self.metrics.decode_seconds.observe(time.perf_counter() - start)

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        self._need_places(count)
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count

    def _need_places(self, count: int) -> None:
        if self._taken + count > self.config.queue:
            raise http_errors.busy(max(1, math.ceil(self._taken / self._rate)))

    def _measured(self, count: int, seconds: float) -> None:
        now = time.perf_counter()
        since = min(seconds, now - self._last)  # batches overlap
        self._last = now
        self._rate = _SLOW * self._rate + _SOON * count / max(since, 1e-3)
        self.metrics.batch_seconds.observe(seconds)
        self.metrics.batch_size.observe(count)


def first_refusal(found: Sequence[tuple[str, object]]) -> Refused | None:
    """The first refusal, where no photo at all was answered."""
    refused = [value for _, value in found if isinstance(value, Refused)]
    return refused[0] if refused and len(refused) == len(found) else None
