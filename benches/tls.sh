#!/usr/bin/env bash
# TLS beside nginx: CPU of a request on a kept connection, of one on a connection whose session is resumed,
# and of a full handshake, with a key of the curve P-256 and one of RSA; and the bytes of an idle connection.
# The server has CPU 0 and the load CPU 1; rounds are interleaved, and figures are medians. It needs nginx,
# openssl, wrk and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
overfall=${CARGO_TARGET_DIR:-$PWD/target}/release/overfall
rounds=${1:-5} connections=2000
identity=$(mktemp -d)
server=
end() { [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2> /dev/null; server=; }
trap 'end; rm -rf "$identity"' EXIT
sed "s#IDENTITY#$identity#g" benches/baselines/nginx-tls.conf > "$identity/nginx.conf"
ulimit -n "$(ulimit -Hn)"

start() { # nginx, or overfall with so many workers
    case $1 in
        nginx) port=7021 command=(nginx -c "$identity/nginx.conf") ;;
        overfall-*) port=7022 command=("$overfall" serve -q --app http --listen 127.0.0.1:7022 --idle-timeout 600s
            --workers "${1#overfall-}" --tls-cert "$identity/cert.pem" --tls-key "$identity/key.pem") ;;
    esac
    taskset -c 0 "${command[@]}" > /dev/null &
    server=$!
    until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do sleep 0.02; done
}

family() { # the process and its children
    echo "$server"
    cat "/proc/$server/task/$server/children"
}

cpu_ns() { # of all threads so far
    for process in $(family); do cat /proc/"$process"/task/*/schedstat; done | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

bytes() { # what the processes have to themselves
    for process in $(family); do cat "/proc/$process/smaps_rollup"; done |
        awk '/^Private_Dirty/ { sum += $2 } END { printf "%.0f", sum * 1024 }'
}

work() { # how much of this was done in so many seconds
    case $1 in
        kept) taskset -c 1 wrk -t1 -c64 -d"$2"s "https://127.0.0.1:$port/" ;;
        # It keeps its sessions.
        resumed) taskset -c 1 wrk -t1 -c64 -d"$2"s -H "Connection: close" "https://127.0.0.1:$port/" ;;
        full) taskset -c 1 openssl s_time -new -connect "127.0.0.1:$port" -time "$2" 2> /dev/null || true ;;
    esac | awk '/requests in|connections in .* real/ { print $1 }'
}

idle() { # so many connections that have made a request each, until it is told to go on
    python3 -c '
import socket, ssl, sys
context = ssl._create_unverified_context()
def dial():
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    stream.recv(4096)
    return stream
streams = [dial() for _ in range(int(sys.argv[2]))]
print("open", flush=True)
sys.stdin.readline()
' "$port" "$1"
}

median() { sort -n | awk '{ all[NR] = $1 } END { printf "%.1f", all[int((NR + 1) / 2)] }'; }

for key in ec rsa; do
    algorithm=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
    [ $key = ec ] || algorithm=(-newkey rsa:2048)
    openssl req -x509 "${algorithm[@]}" -nodes -days 2 -subj /CN=localhost \
        -keyout "$identity/key.pem" -out "$identity/cert.pem" 2> /dev/null
    for ((round = 0; round < rounds; round++)); do
        for arm in nginx overfall-1 overfall-2; do
            start $arm
            work kept 1 > /dev/null
            for what in kept resumed full; do
                before=$(cpu_ns) count=$(work $what 3)
                echo "$(($(cpu_ns) - before)) $count" | awk '{ print $1 / $2 / 1000 }' >> "$identity/$key.$what.$arm"
            done
            end
        done
    done
    for what in kept resumed full; do
        for arm in nginx overfall-1 overfall-2; do
            echo "$key $what $arm: $(median < "$identity/$key.$what.$arm") us"
        done
    done
done

for arm in nginx overfall-2; do
    start $arm
    idle 200 < /dev/null > /dev/null
    sleep 0.5
    before=$(bytes)
    coproc CLIENTS { idle $connections; }
    read -r _ <&"${CLIENTS[0]}"
    echo "idle $arm: $((($(bytes) - before) / connections)) bytes"
    echo >&"${CLIENTS[1]}"
    wait "$CLIENTS_PID" 2> /dev/null || true
    end
done
