#!/usr/bin/env bash
# Starts a real nginx with the module in the foreground, on one of the configurations in nginx-conf/:
#
#   scripts/run.sh NGINX MODULE [CONFIGURATION] [PORT]
#
# CONFIGURATION is the name of a file in nginx-conf/ without .conf (quickstart). Its own directory is build/run;
# everything that nginx writes goes there. It listens on this machine only, also where the file says 0.0.0.0: that is
# for a container, whose host decides who reaches it. Ctrl-C stops it.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

nginx=$1 module=$2 name=${3:-quickstart} wanted=${4:-}
conf=$ROOT/nginx-conf/$name.conf
[[ -x $nginx ]] || die "no nginx at '$nginx'"
[[ -f $conf ]] || die "no configuration $name; there are: $(cd "$ROOT/nginx-conf" && echo *.conf | sed 's/\.conf//g')"

# The first port that the file listens on moves to the wanted one, or the next that is free. Others follow it.
mapfile -t ports < <(sed -nE 's/^ *listen +[0-9.]+:([0-9]+).*/\1/p' "$conf")
[[ ${#ports[@]} -gt 0 ]] || die "$conf has no line 'listen ADDRESS:PORT'"
: "${wanted:=${ports[0]}}"
[[ $wanted =~ ^[0-9]+$ && $wanted -ge 1 && $wanted -le 65500 ]] || die "PORT must be a number from 1 to 65500, not '$wanted'"

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

declare -A moved=()
next=$wanted
for port in "${ports[@]}"; do
    [[ -z ${moved[$port]-} ]] || continue
    while is_taken "$next"; do next=$((next + 1)); done
    moved[$port]=$next
    next=$((next + 1))
done
port=${moved[${ports[0]}]}
[[ $port -eq $wanted ]] || say "Port $wanted is taken: using $port."

# Started as root, nginx runs its workers as another user, who must be able to read the pages and write bodies.
globals='daemon off;'
worker_user=
if [[ $EUID -eq 0 ]]; then
    for worker_user in www-data nobody; do ! id "$worker_user" >/dev/null 2>&1 || break; done
    globals+=" user $worker_user $(id -gn "$worker_user");"
fi

# prepare PREFIX: what every configuration in nginx-conf/ expects below its prefix
prepare() {
    mkdir -p "$1/conf" "$1/modules" "$1/logs" "$1/html" &&
        cp -RL "$ROOT/nginx-conf/html/." "$1/html/" && chmod -R a+rX "$1/html" &&
        put_file "$module" "$1/modules/ngx_http_push_module.so"
}
worker_can_read() {
    [[ -z $worker_user ]] || ! command -v setpriv >/dev/null ||
        setpriv --reuid="$worker_user" --regid="$(id -g "$worker_user")" --clear-groups test -r "$1/html/index.html" 2>/dev/null
}

prefix=$BUILD/run
temporary=
prepare "$prefix"
if ! worker_can_read "$prefix"; then
    # E.g. a clone in /root, which nobody else may enter.
    temporary=$(mktemp -d "${TMPDIR:-/tmp}/nginx-push.XXXXXX")
    chmod 755 "$temporary"
    say "The user $worker_user, as whom nginx's workers run, cannot read $prefix: using $temporary."
    prefix=$temporary
    prepare "$prefix"
fi

script=()
for from in "${!moved[@]}"; do
    # In two steps, so that a moved port is not moved again.
    script+=(-e "s/([0-9.]+:|localhost:)$from\b/\1@${moved[$from]}/g")
done
sed -E "${script[@]}" -e 's/:@/:/g' -e 's/^( *listen +)0\.0\.0\.0:/\1127.0.0.1:/' "$conf" >"$prefix/conf/$name.conf"
scheme=http curl_options=
if grep -qE '^ *listen .*\bssl\b' "$conf"; then
    "$ROOT/scripts/self-signed.sh" "$prefix/conf/tls"
    scheme=https curl_options=' -k'
fi

started=
# shellcheck disable=SC2317,SC2329 # called by trap
finish() {
    trap '' INT TERM
    if [[ -n $started ]] && kill -TERM "$started" 2>/dev/null; then wait "$started" || true; fi
    [[ -z $temporary ]] || rm -rf "$temporary"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

log=$prefix/logs/error.log
earlier=$(stat -c %s "$log" 2>/dev/null || echo 0)
"$nginx" -p "$prefix/" -e "$log" -c "$prefix/conf/$name.conf" -g "$globals" &
started=$!
for _ in {1..100}; do
    kill -0 "$started" 2>/dev/null || break
    ! is_taken "$port" || break
    sleep 0.05
done
if ! kill -0 "$started" 2>/dev/null; then
    wait "$started" || true
    # Not only where the log is: a temporary directory goes.
    die "nginx did not start. Its log says:
$(tail -c "+$((earlier + 1))" "$log" 2>/dev/null | tail -n 5)"
fi

# Where this configuration publishes and subscribes: it says so in comments, each in the server that does it.
location_of() {
    awk -v word="$1:" '
        $1 == "listen" { port = $2; sub(/.*:/, "", port); sub(/[^0-9].*/, "", port) }
        $1 == "#" && $2 == word { print ":" port $3; exit }
    ' "$prefix/conf/$name.conf"
}
base=$scheme://localhost
publisher=$base$(location_of publish)
subscriber=$base$(location_of subscribe)
address=$(sed -E 's|(//[^/]*/).*|\1|' <<<"$publisher")
printf '\n  nginx is running: %s\n' "$address"
# These pages are about /pub and /sub.
if [[ $publisher == "$address"pub\?* ]]; then
    printf '\n  One page for each way to receive:\n'
    for page in long-poll eventsource websocket stream client classic; do printf '    %s\n' "$address$page.html"; done
fi
cat <<TEXT

  Publish a message, and look at the channel:
    curl$curl_options -d 'hello' '$publisher'
    curl$curl_options -H 'Accept: text/json' '$publisher'
  Receive (waits if there is no message yet):
    curl$curl_options -i '$subscriber'

  Logs: $prefix/logs   Configuration: $prefix/conf/$name.conf   Ctrl-C stops it.

TEXT
status=0
wait "$started" || status=$?
started=
exit "$status"
