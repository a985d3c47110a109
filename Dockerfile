# An image that runs the demo: docker build -t octrim . && docker run --name demo octrim; docker cp demo:/home/octrim/runs . brings the results
FROM python:3.11-slim

# Paddle needs libgomp; gcc compiles the C that `octrim compress` measures at the end.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir '/src[cpu,pong]'

WORKDIR /home/octrim
ENTRYPOINT ["octrim"]
CMD ["compress"]
