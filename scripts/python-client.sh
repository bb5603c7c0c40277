#!/usr/bin/env bash
# Makes what tests/python/drive.py runs with: a Python environment with gRPC in DIR/venv, and the messages of
# tests/python/document.proto as Python modules in DIR/gen. Does nothing when both are there. Is silent unless it fails.
set -euo pipefail
proto=$(cd "$(dirname "$0")/.." && pwd)/tests/python/document.proto

packages=(grpcio==1.76.0 grpcio-tools==1.76.0 protobuf==6.33.0)

[ $# -eq 1 ] && [ -n "$1" ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
venv=$dir/venv gen=$dir/gen

# One at a time, because tests that need it may start together.
exec 9>"$dir/lock"
flock 9

# Runs a command. Shows its output only if it fails.
quietly() {
	local output
	output=$("$@" 2>&1) || {
		printf '%s\n' "$output" >&2
		echo "python-client: failed: $*" >&2
		exit 1
	}
}

# Written last, so that an interrupted environment is made anew.
stamp=$venv/packages
if [ "$(cat "$stamp" 2>/dev/null || true)" != "${packages[*]}" ]; then
	rm -rf "$gen"
	quietly python3 -m venv --clear "$venv"
	quietly "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "${packages[@]}"
	echo "${packages[*]}" >"$stamp"
fi

if [ ! "$gen/document_pb2_grpc.py" -nt "$proto" ]; then
	rm -rf "$gen" "$gen.new"
	mkdir "$gen.new"
	quietly "$venv/bin/python" -m grpc_tools.protoc --proto_path="${proto%/*}" \
		--python_out="$gen.new" --grpc_python_out="$gen.new" "${proto##*/}"
	mv "$gen.new" "$gen"
fi
