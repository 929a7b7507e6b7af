# SPDX-License-Identifier: MIT
# docker build -t bitbyte .
# docker run --rm -it -v "$PWD:/work" bitbyte train --data texts --out runs/first --minutes 20
# docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD:/work" bitbyte serve runs/first --host 0.0.0.0
FROM debian:12-slim AS build
WORKDIR /src
COPY scripts/install-deps scripts/
RUN scripts/install-deps && apt-get install -y --no-install-recommends make
COPY . .
RUN make SKIP_DEPS=1 DEBFULLNAME=BitByte DEBEMAIL=bitbyte@example.org deb

FROM debian:12-slim
COPY --from=build /src/build-deb/packages /tmp/packages
RUN apt-get update && apt-get install -y --no-install-recommends /tmp/packages/bitbyte_*.deb openmpi-bin openssh-client \
    && rm -rf /tmp/packages /var/lib/apt/lists/*
RUN useradd --create-home bitbyte
USER bitbyte
WORKDIR /work
EXPOSE 8080
ENTRYPOINT ["bitbyte"]
