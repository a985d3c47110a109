# An image that runs the demo: docker build -t octrim . && docker run --rm -v "$PWD/runs:/work/runs" octrim
FROM python:3.11-slim

# Paddle needs libgomp; gcc compiles the C that `octrim compress` measures at the end.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir '/src[cpu,pong]'

WORKDIR /work
ENTRYPOINT ["octrim"]
CMD ["compress"]
