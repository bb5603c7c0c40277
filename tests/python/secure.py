"""Calls the DPU interface over TCP with TLS, and asks what services there are.

usage: secure.py ADDRESS DIR NAME

DIR has `ca.pem`, the authority of the server's certificate, and `NAME.pem` and `NAME.key`, the client's own. NAME `-`
stands for a client without a certificate. Prints the names of services on success.
"""

import pathlib
import sys

import document_pb2
import document_pb2_grpc
import grpc

TIMEOUT = 10
# ServerReflectionRequest with list_services (field 7) set to an empty string.
LIST_SERVICES = b"\x3a\x00"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def main(address, directory, name):
    directory = pathlib.Path(directory)
    own = (None, None)
    if name != "-":
        own = ((directory / f"{name}.key").read_bytes(), (directory / f"{name}.pem").read_bytes())
    credentials = grpc.ssl_channel_credentials((directory / "ca.pem").read_bytes(), *own)
    with grpc.secure_channel(address, credentials) as channel:
        nic = document_pb2_grpc.ElasticNicStub(channel)
        answer = nic.GetPortCapability(document_pb2.GetPortCapabilityRequest(), timeout=TIMEOUT)
        assert answer.status == 0, answer
        reflect = channel.stream_stream(REFLECTION)
        for answer in reflect(iter([LIST_SERVICES]), timeout=TIMEOUT):
            for service in (b"dpu.ElasticNic", b"dpu.Vdisk", b"dpu.Meter", b"dpu.TrafficControl", b"dpu.PortStats", b"dpu.EthMac"):
                assert service in answer, answer
                print(service.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
