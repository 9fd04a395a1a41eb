# syntax=docker/dockerfile:1
# One image with both services and the operator's program; the command says which one runs.

FROM rust:1.95-slim-bookworm AS build
# librdkafka, SQLite and BLAKE3 are compiled and linked into the programs; OpenSSL, for TLS to Kafka, is not.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package ingest-api --package event-consumer --package operator --bins \
        --features ingest-api/kafka-tls,event-consumer/kafka-tls,operator/kafka-tls \
    && mkdir /out \
    && cp target/release/ingest-api target/release/event-consumer target/release/tallymark docker/healthcheck docker/demo /out/

# The same Debian as the build's: the programs use its C library and its OpenSSL. Brokers are checked
# against its certificates.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home tallymark \
    && install --directory --owner tallymark /demo
COPY --from=build /out/ /usr/local/bin/
USER tallymark
EXPOSE 8080 8081 8082
CMD ["ingest-api", "serve"]
