#!/usr/bin/env bash
# Makes every figure that the documents quote, on this machine and now, into benches/results/.
# It needs two CPUs, a quarter of an hour, and for the servers to compare with: go, nginx, haproxy, gunicorn,
# openssl, wrk and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in go nginx haproxy gunicorn openssl wrk python3; do
    command -v "$program" > /dev/null || { echo "install $program first" >&2; exit 1; }
done
results=$PWD/benches/results baselines=$PWD/benches/baselines
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --locked --release --bins --example tokio
overfall=$target/release/overfall
tokio="$target/release/examples/tokio {app} {work} {addr}"
bench() { "$overfall" bench --rounds 3 --duration 1s "$@"; }
note() { # FILE: what was measured goes there, without the paths of this machine
    sed -e "s#$target/##g" -e "s#$PWD/##g" > "$results/$1"
}

bench --svg "$results/goodput.svg" \
    --against "tokio=$tokio@127.0.0.1:7001" --against "tokio-limit=$tokio 64@127.0.0.1:7002" --peer go | note tcp.txt

bench --protocol http --arm pool --arm spawn \
    --scenario connections --scenario keepalive --scenario idle --peer nginx --peer go | note http.txt

# A service that many know, bare and behind a proxy without any settings.
gunicorn="gunicorn --chdir $baselines --workers 4 --log-level critical --bind"
behind() { echo "$gunicorn 127.0.0.1:70$1 gunicorn_app:app & "; }
bench --protocol http --scenario overload --work 10ms --workers 4 --arm pool --svg "$results/gunicorn.svg" \
    --against "gunicorn=exec $gunicorn {addr} gunicorn_app:app@127.0.0.1:7010" \
    --against "overfall=$(behind 11) exec $overfall balance -q --protocol http --listen {addr} 127.0.0.1:7011@127.0.0.1:7012" \
    --against "haproxy=$(behind 13) exec haproxy -db -f $baselines/haproxy-http.cfg@127.0.0.1:7014" | note gunicorn.txt

benches/tls.sh 3 | tee "$results/tls.txt"

# The relays, with nginx behind them on the CPU of the load. Their ratio to the first arm, which has
# nothing behind it, says nothing; compare them with each other.
place=$(mktemp -d)
sed "s#{dir}#$place#; s#{addr}#127.0.0.1:7004#; s#{connections}#16384#" src/bench/peers/nginx.conf > "$place/nginx.conf"
taskset -c 1 nginx -c "$place/nginx.conf" &
upstream=$!
trap 'kill $upstream; rm -rf "$place"' EXIT
bench --protocol http --arm pool --scenario connections --scenario keepalive \
    --against "balance=$overfall balance -q --workers 4 --listen {addr} 127.0.0.1:7004@127.0.0.1:7005" \
    --against "haproxy=haproxy -db -f $baselines/haproxy.cfg@127.0.0.1:7006" | note balance.txt
