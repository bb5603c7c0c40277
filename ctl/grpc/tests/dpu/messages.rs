//! Messages by their descriptors: the fields that an answer must have, and requests generated from arbitrary bytes.

use std::sync::LazyLock;

use ctl_grpc::proto::DESCRIPTOR;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

static FILE: LazyLock<FileDescriptorProto> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(DESCRIPTOR).unwrap();
    set.file.into_iter().find(|file| file.package() == "dpu").unwrap()
});

/// The message of that name, short or fully qualified.
fn message(name: &str) -> &'static DescriptorProto {
    let name = name.trim_start_matches(".dpu.");
    FILE.message_type.iter().find(|message| message.name() == name).unwrap()
}

fn types(method: &str) -> (&'static DescriptorProto, &'static DescriptorProto) {
    let (service, method) = method.split_once('/').unwrap();
    let service = FILE.service.iter().find(|one| one.name() == service).unwrap();
    let method = service.method.iter().find(|one| one.name() == method).unwrap();
    (message(method.input_type()), message(method.output_type()))
}

/// All methods in the descriptors, as `Service/Method`.
pub fn described() -> Vec<String> {
    let methods = |service: &prost_types::ServiceDescriptorProto| {
        let name = service.name().to_owned();
        service.method.iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
    };
    FILE.service.iter().flat_map(methods).collect()
}

/// Checks that an answer of a method has all required fields, including those of inner messages.
pub fn assert_whole(method: &str, answer: &[u8]) {
    assert_message_whole(method, types(method).1, answer);
}

fn assert_message_whole(of: &str, message: &DescriptorProto, mut bytes: &[u8]) {
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).unwrap();
        seen.push(tag.cast_signed());
        let number = decode_varint(&mut bytes);
        match wire {
            WireType::Varint => drop(number.unwrap()),
            WireType::LengthDelimited => {
                let (inner, rest) = bytes.split_at(number.unwrap() as usize);
                bytes = rest;
                let field = message.field.iter().find(|field| field.number() == tag.cast_signed()).unwrap();
                if field.r#type() == Type::Message {
                    assert_message_whole(of, self::message(field.type_name()), inner);
                }
            }
            wire => panic!("the messages have no {wire:?}"),
        }
    }
    for field in message.field.iter().filter(|field| field.label() == Label::Required) {
        assert!(seen.contains(&field.number()), "{of}: an answer lacks {}.{}", message.name(), field.name());
    }
}

/// Bytes that drive the choices. Zeros follow when they run out.
pub struct Entropy<'a>(pub &'a [u8]);

impl Entropy<'_> {
    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()].clone()
    }

    /// True once in `times` on average, and never without bytes.
    fn rarely(&mut self, times: u8) -> bool {
        let byte = self.byte();
        byte != 0 && byte.is_multiple_of(times)
    }
}

/// A request of a method that often succeeds.
pub fn request(method: &str, entropy: &mut Entropy<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_message(types(method).0, entropy, &mut bytes);
    bytes
}

fn put_message(message: &DescriptorProto, entropy: &mut Entropy<'_>, bytes: &mut Vec<u8>) {
    let mut words = 0;
    for field in &message.field {
        let copies = match field.label() {
            Label::Required => u8::from(!entropy.rarely(200)),
            Label::Optional => u8::from(entropy.rarely(8)),
            Label::Repeated if field.r#type() == Type::Message => entropy.byte() % 4,
            // Words of an address. Its mask mostly has as many.
            Label::Repeated if field.name().ends_with("_mask") && !entropy.rarely(20) => words,
            Label::Repeated => {
                words = entropy.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 4, 2]);
                words
            }
        };
        for _ in 0..copies {
            put_field(message, field, entropy, bytes);
        }
    }
}

fn put_field(message: &DescriptorProto, field: &FieldDescriptorProto, entropy: &mut Entropy<'_>, bytes: &mut Vec<u8>) {
    let (tag, name) = (field.number().cast_unsigned(), field.name());
    let blob = |inner: &[u8], bytes: &mut Vec<u8>| {
        encode_key(tag, WireType::LengthDelimited, bytes);
        encode_varint(inner.len() as u64, bytes);
        bytes.extend_from_slice(inner);
    };
    match field.r#type() {
        Type::Message => {
            let mut inner = Vec::new();
            put_message(self::message(field.type_name()), entropy, &mut inner);
            blob(&inner, bytes);
        }
        Type::Bytes => {
            let len = if entropy.rarely(20) { entropy.pick(&[0, 5, 7]) } else { 6 };
            let address: Vec<u8> =
                (0..len).map(|at| if at == 5 { entropy.byte() } else { 2 * u8::from(at == 0) }).collect();
            blob(&address, bytes);
        }
        Type::String => blob(text(name, entropy).as_bytes(), bytes),
        _ => {
            encode_key(tag, WireType::Varint, bytes);
            encode_varint(number(message, field, entropy), bytes);
        }
    }
}

fn text(name: &str, entropy: &mut Entropy<'_>) -> String {
    match name {
        "ip_type" => entropy.pick(&["", "", "", "ipv4", "ipv6"]).to_owned(),
        "kind" => entropy.pick(&["guest", "guest", "phy", "tap"]).to_owned(),
        "ifname" => entropy.pick(&["eth7", kit::MISSING_NETDEV, "a b"]).to_owned(),
        // Random requests touch no files but those of the test.
        "socket" | "path" => entropy.pick(&["relative", "/no/such/place/x"]).to_owned(),
        _ if entropy.rarely(50) => entropy.pick(&["", "IP", "é", "\n", "0", "x/y", &"x".repeat(129)]).to_owned(),
        name => format!("{name}-{}", entropy.byte() % 8),
    }
}

fn number(message: &DescriptorProto, field: &FieldDescriptorProto, entropy: &mut Entropy<'_>) -> u64 {
    const ODD: [i64; 10] = [-1, -2, 33, 1000, 4095, 4096, 65_535, 65_536, i32::MIN as i64, u32::MAX as i64];
    let small = |entropy: &mut Entropy<'_>| i64::from(entropy.byte() % 4);
    let value = match field.name() {
        _ if entropy.rarely(150) => entropy.pick(&ODD),
        "feature_list" => 0,
        "type" | "mode" | "direction" => entropy.pick(&[0, 0, 1, 1, 2, 3]),
        "qid" => entropy.pick(&[-1, -1, -1, 0, 1]),
        "vid" if message.name() == "RuleAction" => entropy.pick(&[-1, 0, 1, 2]),
        "mtu" => 1400 + small(entropy),
        "queue_depth" => 64 << small(entropy),
        "rate" | "peak_rate" | "burst" | "peak_burst" => 100 + 10 * small(entropy),
        name if name.ends_with("_mask") => entropy.pick(&[-1, -1, -1, -1, -1, -1, -1, 0xff, 0]),
        // A key with few conditions. The index is that of the rule.
        "key_index" if message.name() == "MaskRuleKey" => 0,
        _ if message.name() == "MaskRuleKey" => entropy.pick(&[0, 0, 0, 0, 0, 0, 0, 5]),
        _ => small(entropy),
    };
    match field.r#type() {
        Type::Bool => (value & 1).cast_unsigned(),
        Type::Uint32 => u64::from((value as i32).cast_unsigned()),
        Type::Int32 | Type::Enum => i64::from(value as i32).cast_unsigned(),
        _ => value.cast_unsigned(),
    }
}
