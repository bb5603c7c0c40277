"""Drives the DPU interface as a client that knows its document and nothing of xswitch.

usage: drive.py SOCKET PHASE [ARGUMENT...]

SOCKET is the Unix socket of a daemon. Phases, in this order:
  configure  needs a daemon without ports, meters, rules and disks. Calls every method, and leaves two ports, a meter, two
             rules, a redirect and a disk behind
  verify     checks that they are there, for example after a restart. Changes nothing
  cleanup    removes them

Apart from those:
  switch SRC DEST   redirects frames for port SRC to port DEST (ProcSwitch)

The modules document_pb2 and document_pb2_grpc, generated from document.proto, must be on PYTHONPATH. Prints a line for
every method that works. The first failure ends it with exit code 1.
"""

import errno
import sys

import grpc
from google.protobuf import unknown_fields

import document_pb2 as dpu
import document_pb2_grpc as services

TIMEOUT = 30
"""Seconds for a call. Adding a port makes netdevs."""
REASON = 1000
"""Field that carries the reason of an error. The document does not have it, so it is an unknown field here."""

NIC_B, NIC_A = 0, 5
"""Ports that are left behind."""
METER = 7
"""Meter that is left behind."""
DISK = 3
"""Disk that is left behind."""
NOBODY = 9
"""Number of a port, a meter, a rule and a disk that never exist."""

MAC = bytes.fromhex("020000000501")
NEW_MAC = bytes.fromhex("020000000502")
ANY_MAC = bytes(6)
ALL = 0xFFFFFFFF


class Failure(Exception):
    """A check failed."""


def check(condition, *what):
    if not condition:
        raise Failure(" ".join(str(part) for part in what))


def equal(what, have, want):
    check(have == want, f"{what}: {have!r} where {want!r} was expected")


def errno_name(status):
    return f"{status} ({errno.errorcode.get(status, '?')})" if status else "0"


def reason_of(answer):
    """The reason that came with an error, or None."""
    for field in unknown_fields.UnknownFieldSet(answer):
        if field.field_number == REASON:
            return bytes(field.data).decode()
    return None


def expect(status, answer, what):
    """Checks an answer's status, and that only errors have a reason. Returns the answer."""
    what = f"{type(answer).__name__} to {what}"
    reason = reason_of(answer)
    have = f"{errno_name(answer.status)}{f', {reason}' if reason else ''}"
    check(answer.status == status, f"{what}: status {have}, where {errno_name(status)} was expected")
    check(answer.IsInitialized(), f"{what}: {answer.FindInitializationErrors()} are missing")
    if status:
        check(reason, f"{what}: status {have} comes without a reason")
    else:
        check(reason is None, f"{what}: success comes with a reason: {reason}")
    return answer


def done(*names):
    for name in names:
        print("ok", name, flush=True)


class Service:
    """Calls of a service with the expected status: service.Method(status, field=value, …)."""

    def __init__(self, stub_class, channel):
        self.name = stub_class.__name__.removesuffix("Stub")
        self.stub = stub_class(channel)
        self.channel = channel
        service = dpu.DESCRIPTOR.services_by_name[self.name]
        self.methods = {method.name: method for method in service.methods}

    def __getattr__(self, method):
        request_class = getattr(dpu, self.methods[method].input_type.name)

        def call(status, **fields):
            request = request_class(**fields)
            answer = getattr(self.stub, method)(request, timeout=TIMEOUT, wait_for_ready=True)
            return expect(status, answer, f"{self.name}.{method}({describe(fields)})")

        return call

    def partial(self, method, status, **fields):
        """A call with a message that lacks required fields, which the library alone would refuse to send."""
        request = getattr(dpu, self.methods[method].input_type.name)(**fields)
        check(not request.IsInitialized(), f"test: {self.name}.{method}({describe(fields)}) lacks nothing")
        answer = self.raw(method)(request.SerializePartialToString(), timeout=TIMEOUT)
        return expect(status, answer, f"{self.name}.{method}({describe(fields)}), which is not whole")

    def garbage(self, method, data):
        """A call with bytes that are not a message."""
        try:
            answer = self.raw(method)(data, timeout=TIMEOUT)
        except grpc.RpcError as error:
            equal(f"code of {self.name}.{method} of bytes that are no message", error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        else:
            raise Failure(f"{self.name}.{method} took bytes that are no message: {describe_message(answer)}")

    def raw(self, method):
        answer_class = getattr(dpu, self.methods[method].output_type.name)
        return self.channel.unary_unary(
            f"/dpu.{self.name}/{method}",
            request_serializer=lambda data: data,
            response_deserializer=answer_class.FromString,
        )


def describe_message(message):
    return " ".join(str(message).split())


def describe(fields):
    def show(value):
        return f"{{{describe_message(value)}}}" if hasattr(value, "DESCRIPTOR") else repr(value)

    return ", ".join(f"{name}={show(value)}" for name, value in fields.items())


class Client:
    def __init__(self, channel):
        self.nic = Service(services.ElasticNicStub, channel)
        self.vdisk = Service(services.VdiskStub, channel)
        self.meter = Service(services.MeterStub, channel)
        self.traffic = Service(services.TrafficControlStub, channel)
        self.stats = Service(services.PortStatsStub, channel)
        self.mac = Service(services.EthMacStub, channel)

    def free_ports(self):
        answer = self.nic.GetPortCapability(0)
        check(answer.total_pvf_cnt > NOBODY, f"total_pvf_cnt: {answer.total_pvf_cnt} is too few for this test")
        check(answer.free_pvf_cnt <= answer.total_pvf_cnt, "free_pvf_cnt is above total_pvf_cnt:", describe_message(answer))
        return answer.total_pvf_cnt, answer.free_pvf_cnt

    def free_meters(self):
        answer = self.meter.Capability(0)
        check(answer.total > 0 and answer.free <= answer.total, "meters:", describe_message(answer))
        return answer.total, answer.free


# Rules, as they are written and must be read again


def key(index, **fields):
    """A key that matches anything except in the given fields."""
    wildcards = dict(
        dmac=ANY_MAC, dmac_mask=0, smac=ANY_MAC, smac_mask=0,
        dl4port=0, dl4port_mask=0, sl4port=0, sl4port_mask=0,
        vlan=0, vlan_mask=0, vid=0, vid_mask=0,
        ip_type="", ipprotocol=0, ipprotocol_mask=0,
    )  # fmt: skip
    return dpu.MaskRuleKey(**{"key_index": index, **wildcards, **fields})


def rule_v4():
    """HTTP to 10.0.0.0/24, untagged, from port 0: to port 5."""
    match = key(
        10,
        dmac=MAC, dmac_mask=-1,
        dip=[0x0A000000], dip_mask=[0xFFFFFF00],
        dl4port=80, dl4port_mask=0xFFFF,
        vlan=0, vlan_mask=-1,
        vid=NIC_B, vid_mask=-1,
        ip_type="ipv4",
        ipprotocol=6, ipprotocol_mask=0xFF,
    )  # fmt: skip
    return match, dpu.RuleAction(vid=NIC_A, qid=-1)


def rule_v6():
    """DNS from a high port of 2001:db8:0:1::/64 to 2001:db8::53, by some bits of the source MAC: to port 0, queue 0."""
    match = key(
        11,
        smac=bytes.fromhex("020000000000"), smac_mask=0xFFFF00000000,
        dip=[0x20010DB8, 0, 0, 0x53], dip_mask=[ALL] * 4,
        sip=[0x20010DB8, 1, 0, 0], sip_mask=[ALL, ALL, 0, 0],
        dl4port=53, dl4port_mask=-1,
        sl4port=1024, sl4port_mask=0xFC00,
        ip_type="ipv6",
        ipprotocol=17, ipprotocol_mask=-1,
    )  # fmt: skip
    return match, dpu.RuleAction(vid=NIC_B, qid=0)


def rule_drop():
    """Drops everything. An address may be left out, or be zero with a mask of zero."""
    return key(12, sip=[0], sip_mask=[0]), dpu.RuleAction(vid=-1, qid=-1)


def changed(message, **fields):
    """A copy of a message with other values."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(copy, name)[:]
            getattr(copy, name).extend(value)
        else:
            setattr(copy, name, value)
    return copy


def write_rule(client, rule):
    match, action = rule
    answer = client.traffic.ClassfierWrite(0, key_index=match.key_index, mask_rule_key=match, action=action)
    equal("key_index of a rule written", answer.key_index, match.key_index)


def check_rule(client, rule):
    match, action = rule
    answer = client.traffic.ClassfierRead(0, key_index=match.key_index)
    for field in match.DESCRIPTOR.fields:
        have, want = getattr(answer.mask_rule_key, field.name), getattr(match, field.name)
        equal(f"{field.name} of rule {match.key_index} as it is read", have, want)
    have, want = answer.mask_rule_key.SerializeToString(), match.SerializeToString()
    equal(f"key of rule {match.key_index} as it is read, as bytes", have.hex(), want.hex())
    equal(f"vid of rule {match.key_index}'s action as it is read", answer.action.vid, action.vid)
    equal(f"qid of rule {match.key_index}'s action as it is read", answer.action.qid, action.qid)


# Ports that are left behind


def check_nic_a(port, what):
    equal(f"{what}: vport", port.vport, NIC_A)
    equal(f"{what}: uuid", port.uuid, "nic-a")
    equal(f"{what}: enable", port.enable, True)
    equal(f"{what}: mtu", port.mtu, 1450)
    equal(f"{what}: mac", port.mac.hex(), NEW_MAC.hex())
    equal(f"{what}: queue_depth", port.queue_depth, 512)
    equal(f"{what}: max_qpair", port.max_qpair, 1)
    equal(f"{what}: active_qpair", port.active_qpair, 0)


def check_nic_b(port, what):
    equal(f"{what}: vport", port.vport, NIC_B)
    equal(f"{what}: uuid", port.uuid, "nic-b")
    equal(f"{what}: enable", port.enable, True)
    equal(f"{what}: mtu", port.mtu, 1500)
    equal(f"{what}: bytes of mac", len(port.mac), 6)
    equal(f"{what}: lowest bits of mac {port.mac.hex()} (local, unicast)", port.mac[0] & 3, 2)
    equal(f"{what}: queue_depth", port.queue_depth, 2048)
    equal(f"{what}: max_qpair", port.max_qpair, 1)
    equal(f"{what}: active_qpair", port.active_qpair, 0)


def check_nics(client):
    nic_a, nic_b = (client.nic.GetPortCfg(0, vport=vport) for vport in (NIC_A, NIC_B))
    check_nic_a(nic_a, "GetPortCfg")
    check_nic_b(nic_b, "GetPortCfg")
    listed = {port.vport: port for port in client.nic.QueryPort(0).ports}
    equal("vports of QueryPort", sorted(listed), [NIC_B, NIC_A])
    check_nic_a(listed[NIC_A], "QueryPort")
    check_nic_b(listed[NIC_B], "QueryPort")
    equal("mac of QueryPort and GetPortCfg", listed[NIC_B].mac.hex(), nic_b.mac.hex())


def check_meter(client, rate):
    answer = client.meter.Get(0, id=METER)
    equal("id, rate and type of the meter", (answer.id, answer.rate, answer.type), (METER, rate, 0))


# Phase configure


def configure_nics(client):
    nic = client.nic
    total, free = client.free_ports()
    check(free == total, f"this test needs a daemon without ports: {total - free} of {total} are there")
    equal("ports of QueryPort before any is added", len(nic.QueryPort(0).ports), 0)

    everything = dict(vport=NIC_A, max_qpair=1, mtu=1400, mac=MAC, queue_depth=1024, feature_list=0)
    equal("vport of nic-a", nic.NewPort(0, uuid="nic-a", **everything).vport, NIC_A)
    equal("vport of nic-b, the lowest free one", nic.NewPort(0, uuid="nic-b").vport, NIC_B)
    equal("free ports after two were added", client.free_ports(), (total, total - 2))

    port = nic.GetPortCfg(0, vport=NIC_A)
    for name, want in {**everything, "uuid": "nic-a", "enable": True, "active_qpair": 0}.items():
        if name != "feature_list":
            equal(f"{name} of nic-a", getattr(port, name), want)
    check_nic_b(nic.GetPortCfg(0, vport=NIC_B), "GetPortCfg")

    nic.NewPort(errno.EEXIST, uuid="nic-a")
    nic.NewPort(errno.EEXIST, uuid="nic-c", vport=NIC_A)
    for bad in [
        dict(uuid=""),
        dict(uuid="x" * 129),
        dict(vport=100000),
        dict(max_qpair=0),
        dict(mtu=10),
        dict(mac=MAC[:5]),
        dict(mac=b""),
        dict(mac=bytes.fromhex("010000000501")),
        dict(queue_depth=1000),
        dict(feature_list=1),
    ]:
        nic.NewPort(errno.EINVAL, **{"uuid": "nic-c", **bad})
    nic.partial("NewPort", errno.EINVAL, vport=NOBODY)
    nic.garbage("NewPort", b"\xff\xff\xff\xff")
    nic.garbage("NewPort", b"\x0a\x05nic")
    equal("free ports after what was refused", client.free_ports(), (total, total - 2))

    third = nic.NewPort(0, uuid="nic-c").vport
    equal("vport of nic-c, the lowest free one", third, 1)
    equal("vport of the answer to DelPort", nic.DelPort(0, vport=third).vport, third)
    nic.DelPort(errno.ENOENT, vport=third)
    nic.partial("DelPort", errno.EINVAL)
    equal("free ports after one was deleted", client.free_ports(), (total, total - 2))
    done("ElasticNic.GetPortCapability", "ElasticNic.NewPort", "ElasticNic.DelPort")

    answer = nic.SetPortCfg(0, vport=NIC_A, mtu=1450, mac=NEW_MAC, queue_depth=512)
    equal("vport of the answer to SetPortCfg", answer.vport, NIC_A)
    check_nics(client)
    nic.SetPortCfg(errno.EOPNOTSUPP, vport=NIC_A, max_qpair=2)
    nic.SetPortCfg(errno.EOPNOTSUPP, vport=NIC_A, feature_list=1)
    nic.SetPortCfg(errno.ENOENT, vport=NOBODY, mtu=1400)
    # If one half of a change is refused, the other half is not done either.
    for bad in [dict(mtu=10), dict(mac=MAC[:5], mtu=1300), dict(queue_depth=1000, mtu=1300), dict(mac=MAC, mtu=10)]:
        nic.SetPortCfg(errno.EINVAL, vport=NIC_A, **bad)
    nic.partial("SetPortCfg", errno.EINVAL, mtu=1400)
    check_nics(client)
    done("ElasticNic.SetPortCfg")

    equal("enable of a port that is not there", nic.GetPortCfg(errno.ENOENT, vport=NOBODY).enable, False)
    nic.partial("GetPortCfg", errno.EINVAL)
    done("ElasticNic.GetPortCfg", "ElasticNic.QueryPort")


def configure_meters(client):
    meter = client.meter
    total, free = client.free_meters()
    check(free == total, f"this test needs a daemon without meters: {total - free} of {total} are there")

    equal("id of the answer to Add", meter.Add(0, id=METER, rate=2000).id, METER)
    equal("free meters after one was added", client.free_meters(), (total, total - 1))
    check_meter(client, 2000)
    meter.Add(errno.EEXIST, id=METER, rate=1000)
    meter.Add(errno.EINVAL, id=NOBODY, rate=0)
    meter.partial("Add", errno.EINVAL, id=NOBODY)
    meter.partial("Add", errno.EINVAL, rate=1000)
    meter.garbage("Add", b"\x08")
    check_meter(client, 2000)
    done("Meter.Add")

    equal("id of the answer to Update", meter.Update(0, id=METER, rate=3000).id, METER)
    check_meter(client, 3000)
    meter.Update(errno.ENOENT, id=NOBODY, rate=1000)
    meter.Update(errno.EINVAL, id=METER, rate=0)
    meter.partial("Update", errno.EINVAL, id=METER)
    check_meter(client, 3000)
    meter.Get(errno.ENOENT, id=NOBODY)
    meter.partial("Get", errno.EINVAL)
    done("Meter.Update", "Meter.Get")

    meter.Add(0, id=ALL, rate=ALL)
    largest = meter.Get(0, id=ALL)
    equal("id and rate of the largest meter", (largest.id, largest.rate), (ALL, ALL))
    equal("id of the answer to Del", meter.Del(0, id=ALL).id, ALL)
    meter.Del(errno.ENOENT, id=ALL)
    meter.partial("Del", errno.EINVAL)
    equal("free meters in the end", client.free_meters(), (total, total - 1))
    done("Meter.Del", "Meter.Capability")


def configure_rules(client):
    traffic = client.traffic
    for rule in rule_v4(), rule_v6(), rule_drop():
        write_rule(client, rule)
    for rule in rule_v4(), rule_v6(), rule_drop():
        check_rule(client, rule)
    # A write replaces an existing rule. The index inside the key may be left at 0.
    match, action = rule_drop()
    traffic.ClassfierWrite(0, key_index=12, mask_rule_key=changed(match, key_index=0, vlan=7, vlan_mask=0xFFF), action=action)
    answer = traffic.ClassfierRead(0, key_index=12)
    equal("vlan of a rule that was replaced", (answer.mask_rule_key.vlan, answer.mask_rule_key.vlan_mask), (7, 0xFFF))

    equal("key_index of the answer to ClassfierDelete", traffic.ClassfierDelete(0, key_index=12).key_index, 12)
    traffic.ClassfierDelete(errno.ENOENT, key_index=12)
    traffic.ClassfierRead(errno.ENOENT, key_index=12)
    traffic.partial("ClassfierDelete", errno.EINVAL)
    traffic.partial("ClassfierRead", errno.EINVAL)
    done("TrafficControl.ClassfierDelete", "TrafficControl.ClassfierRead")

    match, action = rule_v4()
    match = changed(match, key_index=12)

    def refused(status, index=12, to=action, **fields):
        traffic.ClassfierWrite(status, key_index=index, mask_rule_key=changed(match, **fields), action=to)

    refused(errno.EINVAL, key_index=13)
    refused(errno.EINVAL, index=65536, key_index=65536)
    refused(errno.EINVAL, index=-2, key_index=-2)
    refused(errno.EINVAL, dl4port=80, dl4port_mask=0xF)
    refused(errno.EINVAL, dip=[0x0A000001])
    refused(errno.EINVAL, dmac_mask=0xFFFF00000000)
    refused(errno.EINVAL, dip=[0x0A000000, 0, 0], dip_mask=[ALL, 0, 0])
    refused(errno.EINVAL, dip=[0x0A000000], dip_mask=[ALL, 0, 0, 0])
    refused(errno.EINVAL, dip=[0x0A000000], dip_mask=[])
    refused(errno.EINVAL, dip=[], dip_mask=[ALL])
    refused(errno.EINVAL, dip=[0x20010DB8, 0, 0, 0], dip_mask=[ALL, 0, 0, 0])  # IPv6 where ip_type says IPv4
    refused(errno.EINVAL, sip=[0x20010DB8, 0, 0, 0], sip_mask=[ALL, 0, 0, 0])
    refused(errno.EINVAL, dmac=MAC[:5])
    refused(errno.EINVAL, smac=MAC + b"\x00", smac_mask=-1)
    refused(errno.EINVAL, ip_type="ipx")
    refused(errno.EINVAL, dl4port=65536, dl4port_mask=-1)
    refused(errno.EINVAL, dl4port=-1, dl4port_mask=-1)
    refused(errno.EINVAL, vlan=4096, vlan_mask=-1)
    refused(errno.EINVAL, ipprotocol=256, ipprotocol_mask=-1)
    refused(errno.EINVAL, vid=100000, vid_mask=-1)
    refused(errno.ENOENT, to=dpu.RuleAction(vid=999, qid=-1))
    refused(errno.EINVAL, to=dpu.RuleAction(vid=-2, qid=-1))
    refused(errno.EINVAL, to=dpu.RuleAction(vid=NIC_A, qid=7))
    refused(errno.EINVAL, to=dpu.RuleAction(vid=NIC_A, qid=-2))
    traffic.partial("ClassfierWrite", errno.EINVAL, key_index=12, mask_rule_key=match)
    traffic.partial("ClassfierWrite", errno.EINVAL, key_index=12, action=action)
    traffic.partial("ClassfierWrite", errno.EINVAL, mask_rule_key=match, action=action)
    traffic.partial("ClassfierWrite", errno.EINVAL, key_index=12, mask_rule_key=dpu.MaskRuleKey(key_index=12), action=action)
    traffic.partial("ClassfierWrite", errno.EINVAL, key_index=12, mask_rule_key=match, action=dpu.RuleAction(vid=NIC_A))
    traffic.garbage("ClassfierWrite", b"\x12\x7f\x00")
    for index in 12, 13:
        traffic.ClassfierRead(errno.ENOENT, key_index=index)
    for rule in rule_v4(), rule_v6():
        check_rule(client, rule)
    done("TrafficControl.ClassfierWrite")


def configure_redirects(client):
    traffic = client.traffic
    traffic.ProcSwitch(0, src_pfid=NIC_B, dest_pfid=NIC_A)
    traffic.ProcSwitch(errno.ELOOP, src_pfid=NIC_A, dest_pfid=NIC_B)
    traffic.ProcSwitch(0, src_pfid=NIC_B, dest_pfid=NIC_B)
    # The redirect is gone, so the opposite one is no loop.
    traffic.ProcSwitch(0, src_pfid=NIC_A, dest_pfid=NIC_B)
    traffic.ProcSwitch(0, src_pfid=NIC_A, dest_pfid=NIC_A)
    traffic.ProcSwitch(errno.ENOENT, src_pfid=NOBODY, dest_pfid=NIC_A)
    traffic.ProcSwitch(errno.ENOENT, src_pfid=NIC_A, dest_pfid=NOBODY)
    traffic.partial("ProcSwitch", errno.EINVAL, src_pfid=NIC_B)
    traffic.garbage("ProcSwitch", b"\x08\xff")
    traffic.ProcSwitch(0, src_pfid=NIC_B, dest_pfid=NIC_A)
    # The target of a redirect can't be deleted.
    client.nic.DelPort(errno.EBUSY, vport=NIC_A)
    done("TrafficControl.ProcSwitch")


def read_stats(client):
    for vid in NIC_B, NIC_A:
        answer = client.stats.GetPortStats(0, vid=vid)
        for field in answer.DESCRIPTOR.fields:
            check(answer.HasField(field.name), f"GetPortStats({vid}): {field.name} is missing")
        equal("vid of the answer to GetPortStats", answer.vid, vid)
    client.stats.GetPortStats(errno.ENOENT, vid=NOBODY)
    client.stats.partial("GetPortStats", errno.EINVAL)
    client.stats.garbage("GetPortStats", b"\x08")
    done("PortStats.GetPortStats")


def check_disk(client):
    """The disk that is left behind: grown and paused."""
    expected = dict(enable=True, max_queue=2, msix_num=5, queue_depth=128, sector_num=8192, nr_active_queue=0,
                    trans_status=3, name="vol-a", port_type=dpu.PF_TYPE)
    disk = client.vdisk.GetPvfCfg(0, pvf_id=DISK)
    equal("pvf_id of GetPvfCfg", disk.pvf_id, DISK)
    for field, value in expected.items():
        equal(f"{field} of GetPvfCfg", getattr(disk, field), value)
    for get_from_hard in True, False:
        disks = client.vdisk.GetAllPvfCfg(0, get_from_hard=get_from_hard).cfgs
        equal("disks of GetAllPvfCfg", [disk.pvfid for disk in disks], [DISK])
        for field, value in expected.items():
            equal(f"{field} of GetAllPvfCfg", getattr(disks[0], field), value)


def free_disks(client):
    answer = client.vdisk.GetPvfCapability(0)
    check(answer.total_pvf_cnt > NOBODY, f"total_pvf_cnt: {answer.total_pvf_cnt} is too few for this test")
    return answer.total_pvf_cnt, answer.free_pvf_cnt


def configure_disks(client):
    vdisk = client.vdisk
    total, free = free_disks(client)
    equal("free disks at the beginning", free, total)
    done("Vdisk.GetPvfCapability")
    equal("pvf_id of the first disk", vdisk.Create(0, name="vol-b").pvf_id, 0)
    made = vdisk.Create(0, name="vol-a", pvf_id=DISK, max_queue=2, queue_depth=128, msix=5)
    equal("pvf_id of the answer to Create", made.pvf_id, DISK)
    equal("free disks", free_disks(client), (total, total - 2))
    vdisk.Create(errno.EEXIST, name="vol-a")
    vdisk.Create(errno.EEXIST, name="vol-c", pvf_id=DISK)
    vdisk.Create(errno.EINVAL, name="")
    vdisk.Create(errno.EINVAL, name="vol-c", pvf_id=total)
    vdisk.Create(errno.EINVAL, name="vol-c", max_queue=0)
    vdisk.Create(errno.EINVAL, name="vol-c", queue_depth=100)
    vdisk.Create(errno.EINVAL, name="vol-c", msix=4000)
    vdisk.partial("Create", errno.EINVAL, pvf_id=1)
    vdisk.garbage("Create", b"\x0a\xff")
    done("Vdisk.Create")
    sectors = vdisk.GetPvfCfg(0, pvf_id=DISK).sector_num
    check(0 < sectors <= 8192, f"sector_num of a new disk: {sectors}")
    vdisk.Update(0, pvf_id=DISK, number_secotrs=8192)
    vdisk.Update(errno.EINVAL, pvf_id=DISK, number_secotrs=4096)
    vdisk.Update(errno.EINVAL, pvf_id=DISK, number_secotrs=0)
    vdisk.Update(errno.ENOENT, pvf_id=NOBODY, number_secotrs=8192)
    vdisk.Update(0, pvf_id=DISK)
    vdisk.partial("Update", errno.EINVAL, number_secotrs=8192)
    vdisk.garbage("Update", b"\x10\xff")
    done("Vdisk.Update")
    for pause, trans_status in (True, 3), (False, 0), (True, 3):
        vdisk.Pause(0, pvf_id=DISK, pause=pause)
        equal("trans_status", vdisk.GetPvfCfg(0, pvf_id=DISK).trans_status, trans_status)
    vdisk.Pause(errno.ENOENT, pvf_id=NOBODY, pause=True)
    vdisk.partial("Pause", errno.EINVAL, pvf_id=DISK)
    vdisk.partial("Pause", errno.EINVAL, pause=True)
    vdisk.garbage("Pause", b"\x08")
    done("Vdisk.Pause")
    vdisk.Destroy(0, pvf_id=0)
    vdisk.Destroy(errno.ENOENT, pvf_id=0)
    vdisk.partial("Destroy", errno.EINVAL)
    vdisk.garbage("Destroy", b"\x08")
    equal("free disks", free_disks(client), (total, total - 1))
    done("Vdisk.Destroy")
    check_disk(client)
    vdisk.GetPvfCfg(errno.ENOENT, pvf_id=NOBODY)
    vdisk.partial("GetPvfCfg", errno.EINVAL)
    vdisk.partial("GetAllPvfCfg", errno.EINVAL)
    done("Vdisk.GetPvfCfg", "Vdisk.GetAllPvfCfg")


def used_ports(client):
    total, free = client.free_ports()
    return total - free


def bond_options(*options):
    """Options of the Linux bonding driver: (name, value) each."""
    return [dpu.BondOpts(opt_name=name, value=value) for name, value in options]


def call_what_there_is_none_of(client):
    for method, refusal, fields in [
        ("BondSet", errno.ENOENT, dict(enable=False)),
        ("BondSet", errno.EINVAL, dict(enable=True, bond_opts=bond_options(("lacprate", "fast")))),
        ("BondSet", errno.EOPNOTSUPP, dict(enable=True, bond_opts=bond_options(("mode", "balance-alb")))),
        ("GetStats", errno.ENOENT, dict(port_id=0)),
        ("GetLink", errno.ENOENT, dict(port_id=0)),
        ("GetMtu", errno.ENOENT, dict(port_id=0)),
        ("SetMtu", errno.ENOENT, dict(port_id=0, mtu=1500)),
    ]:
        getattr(client.mac, method)(refusal, **fields)
        done(f"{client.mac.name}.{method}")


def optical(client):
    """One optical port is there: an end of a veth pair."""
    mac = client.mac
    link = mac.GetLink(0, port_id=0).link
    for field, value in dict(link_speed=10000, link_duplex=True, link_autoneg=False, link_status=True).items():
        equal(f"{field} of GetLink", getattr(link, field), value)
    equal("mtu of GetMtu", mac.GetMtu(0, port_id=0).mtu, 1500)
    equal("port_id of SetMtu", mac.SetMtu(0, port_id=0, mtu=1400).port_id, 0)
    equal("mtu after SetMtu", mac.GetMtu(0, port_id=0).mtu, 1400)
    mac.SetMtu(errno.EINVAL, port_id=0, mtu=67)
    mac.SetMtu(errno.EINVAL, port_id=0, mtu=70000)
    for method, fields in ("GetLink", {}), ("GetMtu", {}), ("GetStats", {}), ("SetMtu", dict(mtu=1500)):
        getattr(mac, method)(errno.ENOENT, port_id=1, **fields)
        mac.partial(method, errno.EINVAL, **fields)
        mac.garbage(method, b"\x08")
    equal("mtu after refusals", mac.GetMtu(0, port_id=0).mtu, 1400)
    stats = mac.GetStats(0, port_id=0)
    for total, queues in ("ipackets", "q_ipackets"), ("opackets", "q_opackets"), ("ibytes", "q_ibytes"), ("obytes", "q_obytes"):
        equal(f"{total} and the sum of {queues}", getattr(stats, total), sum(getattr(stats, queues)))
        equal(f"queues of {queues}", len(getattr(stats, queues)), 2)
    equal("queues of q_errors", len(stats.q_errors), 2)
    check(stats.ipackets >= 20, "packets were sent to the port:", describe_message(stats))
    done("EthMac")


def bond(client):
    """Two netdevs are there, b0 and b1, whose other ends have a link and no LACP."""
    mac = client.mac
    lacp = bond_options(("slaves", "+b0"), ("slaves", "+b1"), ("lacp_rate", "fast"), ("mode", "802.3ad"), ("updelay", "250"))
    mac.BondSet(0, enable=True, bond_opts=lacp)
    mac.BondSet(0, enable=True, bond_opts=lacp)
    equal("ports in use", used_ports(client), 1)
    for option, status in [
        (("mode", "active-backup"), errno.ENOTEMPTY),
        (("lacp_rate", "slow"), errno.EBUSY),
        (("primary", "b0"), errno.EACCES),
        (("xmit_hash_policy", "7"), errno.EINVAL),
        (("arp_interval", "100"), errno.EACCES),
        (("use_carrier", "0"), errno.EOPNOTSUPP),
        (("slaves", "-b9"), errno.ENOENT),
    ]:
        mac.BondSet(status, enable=True, bond_opts=bond_options(option))
    mac.BondSet(0, enable=True, bond_opts=bond_options(("xmit_hash_policy", "layer3+4"), ("slaves", "-b1")))
    mac.partial("BondSet", errno.EINVAL)
    mac.garbage("BondSet", b"\x08")
    mac.GetLink(errno.ENOENT, port_id=0)
    done("EthMac.BondSet")


def end_bond(client):
    """The bond has outlived a restart."""
    mac = client.mac
    mac.BondSet(0, enable=True, bond_opts=bond_options(("slaves", "b0 b1")))
    mac.BondSet(0, enable=False)
    mac.BondSet(errno.ENOENT, enable=False)
    equal("ports in use", used_ports(client), 0)
    done("EthMac.BondSet")


def configure(client):
    configure_nics(client)
    configure_meters(client)
    configure_rules(client)
    configure_redirects(client)
    read_stats(client)
    configure_disks(client)
    call_what_there_is_none_of(client)
    verify(client)


# The other phases


def verify(client):
    check_nics(client)
    total, free = client.free_ports()
    equal("ports in use", total - free, 2)
    done("ElasticNic: two ports are there")
    check_meter(client, 3000)
    total, free = client.free_meters()
    equal("meters in use", total - free, 1)
    done("Meter: one meter is there")
    for rule in rule_v4(), rule_v6():
        check_rule(client, rule)
    client.traffic.ClassfierRead(errno.ENOENT, key_index=12)
    client.traffic.ProcSwitch(errno.ELOOP, src_pfid=NIC_A, dest_pfid=NIC_B)
    done("TrafficControl: two rules and a redirect are there")
    check_disk(client)
    done("Vdisk: a paused disk is there")
    read_stats(client)


def cleanup(client):
    client.traffic.ProcSwitch(0, src_pfid=NIC_B, dest_pfid=NIC_B)
    done("TrafficControl.ProcSwitch")
    for index in 10, 11:
        client.traffic.ClassfierDelete(0, key_index=index)
        client.traffic.ClassfierRead(errno.ENOENT, key_index=index)
    done("TrafficControl.ClassfierDelete")
    client.meter.Del(0, id=METER)
    total, free = client.free_meters()
    equal("free meters in the end", free, total)
    done("Meter.Del")
    for vport in NIC_B, NIC_A:
        client.nic.DelPort(0, vport=vport)
    equal("ports of QueryPort in the end", len(client.nic.QueryPort(0).ports), 0)
    total, free = client.free_ports()
    equal("free ports in the end", free, total)
    done("ElasticNic.DelPort")
    client.vdisk.Destroy(0, pvf_id=DISK)
    total, free = free_disks(client)
    equal("free disks in the end", free, total)
    done("Vdisk.Destroy")


def switch(client, src, dest):
    client.traffic.ProcSwitch(0, src_pfid=src, dest_pfid=dest)
    done(f"TrafficControl.ProcSwitch: {src} to {dest}")


def main(arguments):
    phases = {"configure": configure, "verify": verify, "cleanup": cleanup, "switch": switch, "optical": optical}
    phases |= {"bond": bond, "end_bond": end_bond}
    path, phase, *numbers = arguments if len(arguments) > 1 else (None, None)
    if phase not in phases or len(numbers) != (2 if phase == "switch" else 0):
        print(f"usage: drive.py SOCKET {'|'.join(phases)} [ARGUMENT...]", file=sys.stderr)
        return 2
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            phases[phase](Client(channel), *map(int, numbers))
        except Failure as failure:
            print(f"drive: {phase}: {failure}", file=sys.stderr)
            return 1
        except grpc.RpcError as error:
            print(f"drive: {phase}: the call failed: {error.code()}: {error.details()}", file=sys.stderr)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
