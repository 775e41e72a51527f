# `fieldmark serve` as an ordinary user, who can write nothing but the cache:
#   docker build -t fieldmark .
#   docker run --read-only --tmpfs /tmp --tmpfs /cache:uid=10001 --cap-drop ALL --security-opt no-new-privileges \
#     -v "$PWD/MODEL:/model:ro" -v "$PWD/keys.txt:/keys.txt:ro" -p 8000:8000 fieldmark
FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home fieldmark
WORKDIR /build
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY src src
# Every package with the digest of the lock file; the index of PyTorch for processors would have other digests.
RUN pip install --no-cache-dir 'uv>=0.8' \
    && uv export --quiet --frozen --extra serve --no-dev --no-emit-project -o requirements.txt \
    && pip install --no-cache-dir --require-hashes -r requirements.txt \
    && pip install --no-cache-dir --no-deps . \
    && rm -rf /build/*
ENV FIELDMARK_CACHE=/cache
USER fieldmark
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live')"]
CMD ["fieldmark", "serve", "/model", "--host", "0.0.0.0", "--api-key-file", "/keys.txt"]
