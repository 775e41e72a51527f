"""Process the photos of requests: queue, decoding, network, metrics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from fieldmark.data.images.boxes import is_inside
from fieldmark.data.storage.places import Box
from fieldmark.inference import explain
from fieldmark.inference.classifier import Classifier, Prediction
from fieldmark.serving import answers, http_errors, model, multipart
from fieldmark.serving.asked import Asked, bad_parameter
from fieldmark.serving.batcher import Batcher
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.decoders import Decoded, DecoderFailed, Decoders
from fieldmark.serving.http_errors import HttpError
from fieldmark.serving.metrics import Metrics
from fieldmark.serving.multipart import BodyMemory, Upload
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason
from fieldmark.utils.typing import ByteArray

T = TypeVar("T")

_SMOOTHING = 0.1  # weight of the newest batch in the moving average of the rate


class Service:
    """One classifier with its queue, decoding processes and network threads."""

    def __init__(self, classifier: Classifier, config: ServeConfig) -> None:
        self.classifier, self.config, self.metrics = classifier, config, Metrics()
        self.decoders = Decoders(
            classifier.views,
            count=config.workers,
            max_pixels=config.max_pixels,
            seconds=config.decode_seconds,
            exif=classifier.prior is not None,
            on_failure=self.metrics.decoder_failures.inc,
        )
        self.batcher = Batcher(
            partial(model.predict, classifier),
            size=config.batch,
            pending=lambda: self._decoding,
            on_batch=self._on_batch,
        )
        self._memory = BodyMemory(config)
        self._queued = self._decoding = 0
        self._rate = 10.0  # photos per second, until it has been measured
        self._last = -math.inf  # end of the latest batch
        for name, help, value in (
            ("queue_photos", "Photos in the queue.", lambda: self._queued),
            ("queue_places", "Capacity of the queue.", lambda: config.queue),
            ("held_bytes", "Bytes of request bodies in memory.", lambda: self._memory.used),
            ("decoders", "Running decoding processes.", lambda: self.decoders.alive),
        ):
            self.metrics.gauge(name, help, value)

    async def start(self) -> None:
        """Start the decoding processes and the network threads; see `Decoders.start`."""
        await self.decoders.start()
        self.batcher.start()

    async def close(self) -> None:
        """Answer the photos in the queue, then stop."""
        await self.batcher.close()
        await self.decoders.close()

    @property
    def ready(self) -> bool:
        """Whether photos can be answered now."""
        return self.decoders.alive > 0 and self.batcher.alive

    async def each_photo(
        self, request: Request, answer: Callable[[Upload, Decoded], Awaitable[T]], asked: Asked | None = None
    ) -> list[tuple[str, T | HttpError]]:
        """Return the name of each photo of a request with its answer or its error; raises HttpError for the
        request as a whole: queue full, too large, unreadable. `asked` are its parameters, if it takes any."""
        self._require_capacity(1)  # before the body is read
        with self._memory.request() as add:
            uploads, fields = await multipart.read_photos(request, add, self.config)
            if asked is None and (taken := fields.keys() & Asked.model_fields.keys()):
                raise bad_parameter(f"The field {min(taken)} is for /v1/predict alone: leave it out.")
            asked = (asked or Asked()).with_fields(fields)
            asked.check(self.classifier)
            boxes = asked.boxes_of([each.name for each in uploads], self.classifier)
            uploads = [
                replace(each, asked=asked, boxes=own) for each, own in zip(uploads, boxes, strict=True)
            ]
            count = sum(max(1, len(each.classified)) if each else 1 for each in boxes)
            if count > self.config.queue:
                message = f"At most {self.config.queue} boxes may be sent at once."
                raise HttpError(413, "too-many-boxes", message)
            with self._queue(count):
                tasks = [asyncio.ensure_future(self._one(each, answer)) for each in uploads]
                try:
                    found = await asyncio.gather(*tasks)
                finally:  # after an error that concerns the whole request
                    for task in tasks:
                        task.cancel()
        return [(each.name, value) for each, value in zip(uploads, found, strict=True)]

    async def classify(self, upload: Upload, photo: Decoded) -> answers.PhotoAnswer:
        """Classify one photo, or each box of it."""
        asked = upload.asked
        where, why = asked.location(photo.exif, self.classifier)
        made = answers.PhotoAnswer(name=upload.name, width=photo.width, height=photo.height)
        made.note = photo.note or None
        if self.classifier.prior:
            made.prior = answers.PriorAnswer(used=where is not None, reason=why)
        rank = partial(self._rank, how=model.Ranking(asked.top, where))
        if upload.boxes is None:
            made.answer, made.labels = answers.answered(await rank(photo.crops))
            return made
        crops = [each for each in photo.in_boxes if not isinstance(each, ImageRejected)]
        predictions = iter(await asyncio.gather(*map(rank, crops)))
        found = iter(
            [each if isinstance(each, ImageRejected) else next(predictions) for each in photo.in_boxes]
        )
        made.kind, made.boxes = upload.boxes.kind, []
        for each in upload.boxes.detections:
            box = answers.BoxAnswer.of(each)
            if upload.boxes.counts(each):
                result = next(found) if is_inside(each.box) else ImageRejected(RejectReason.OUTSIDE)
                if isinstance(result, ImageRejected):
                    box.error = answers.error_detail(
                        http_errors.photo_rejected(result, self.config.max_pixels)
                    )
                else:
                    box.answer, box.labels = answers.answered(result)
            made.boxes.append(box)
        return made

    async def _rank(self, crops: tuple[ByteArray, ...], how: model.Ranking) -> Prediction:
        prediction = await self.batcher.predict(crops, how)
        self.metrics.photos.labels(prediction.source.replace(" ", "-")).inc()
        return prediction

    async def similar(self, upload: Upload, photo: Decoded, count: int) -> answers.SimilarPhotos:
        """Find the training photos most similar to one photo; raises HttpError without an index of them."""
        if not model.has_index(self.classifier):
            raise http_errors.not_offered("similar photos: it has no index of them")
        found = await self.batcher.call(partial(explain.similar, self.classifier, photo.crops[0], count))
        shown = await asyncio.to_thread(model.with_thumbnails, self.classifier, found)
        return answers.SimilarPhotos(name=upload.name, similar=shown)

    async def heat_map(self, _upload: Upload, photo: Decoded, taxon_id: str | None) -> answers.HeatMap:
        """Compute which parts of one photo support a label; raises HttpError if that is not possible."""
        if taxon_id is not None and taxon_id not in self.classifier.taxonomy:
            raise HttpError(400, "bad-parameter", "The classifier has no class with this taxon_id.")
        try:
            return await self.batcher.call(partial(model.heat_map, self.classifier, photo, taxon_id))
        except InputError as error:
            raise http_errors.not_offered("heat maps") from error

    async def _one(self, upload: Upload, answer: Callable[[Upload, Decoded], Awaitable[T]]) -> T | HttpError:
        boxes = None if upload.boxes is None else [each.box for each in upload.boxes.classified]
        try:
            photo = await self._decode(upload.data, boxes)
        except HttpError as error:
            self.metrics.photos.labels(error.code).inc()
            return error
        return await answer(upload, photo)

    async def _decode(self, data: bytes, boxes: Sequence[Box] | None) -> Decoded:
        start = time.perf_counter()
        self._decoding += 1
        try:
            return await self.decoders.decode(data, boxes)
        except ImageRejected as rejected:
            raise http_errors.photo_rejected(rejected, self.config.max_pixels) from rejected
        except DecoderFailed as error:
            raise HttpError(422, "decoder-failed", "The photo cannot be decoded safely.") from error
        finally:
            self._decoding -= 1
            self.metrics.decode_seconds.observe(time.perf_counter() - start)

    @contextmanager
    def _queue(self, count: int) -> Iterator[None]:
        self._require_capacity(count)
        self._queued += count
        try:
            yield
        finally:
            self._queued -= count

    def _require_capacity(self, count: int) -> None:
        if self._queued + count > self.config.queue:
            raise http_errors.busy(max(1, math.ceil(self._queued / self._rate)))

    def _on_batch(self, count: int, seconds: float) -> None:
        now = time.perf_counter()
        since = min(seconds, now - self._last)  # batches overlap
        self._last = now
        self._rate += _SMOOTHING * (count / max(since, 1e-3) - self._rate)
        self.metrics.batch_seconds.observe(seconds)
        self.metrics.batch_size.observe(count)
