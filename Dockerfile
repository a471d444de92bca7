# An nginx with the push module, ready to run:
#
#   docker build -t nginx-push .
#   docker run --rm -p 8080:8080 -p 127.0.0.1:8081:8081 nginx-push
#
# Port 8080 is for subscribers, 8081 for the application that publishes (and for the page to try it); see
# nginx-conf/docker.conf. Mount a file over /etc/nginx/nginx.conf for a configuration of your own.

# Both stages must have the same Debian release: the module fits one version of nginx.
ARG DEBIAN=bookworm

FROM rust:1-${DEBIAN} AS build
WORKDIR /src
# First what changes seldom: these packages stay in Docker's cache.
COPY scripts/lib.sh scripts/setup.sh scripts/
RUN scripts/setup.sh build
COPY . .
RUN make build

FROM debian:${DEBIAN}-slim
COPY scripts/lib.sh scripts/setup.sh scripts/install-image.sh /tmp/image/scripts/
COPY nginx-conf /tmp/image/nginx-conf
COPY client /tmp/image/client
COPY --from=build /src/build/ngx_http_push_module.so /tmp/image/build/
RUN /tmp/image/scripts/install-image.sh --overwrite && rm -rf /tmp/image /var/lib/apt/lists/*
EXPOSE 8080 8081
# Long-polls are answered before nginx ends.
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
