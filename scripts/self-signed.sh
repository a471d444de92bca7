#!/usr/bin/env bash
# Makes a key and a certificate for localhost, signed by itself, to try TLS with:
#
#   scripts/self-signed.sh DIRECTORY      writes cert.pem and key.pem there, unless they are there already
set -euo pipefail
source "$(dirname "$0")/lib.sh"

[[ $# -eq 1 ]] || die "usage: self-signed.sh DIRECTORY"
command -v openssl >/dev/null || die "openssl is not installed ('scripts/setup.sh tls' installs it)"
mkdir -p "$1"
[[ ! -s $1/cert.pem || ! -s $1/key.pem ]] || exit 0
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' \
    -keyout "$1/key.pem" -out "$1/cert.pem" 2>/dev/null || die "openssl could not make a certificate in $1"
chmod 644 "$1/cert.pem"
