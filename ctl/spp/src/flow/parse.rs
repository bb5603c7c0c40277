//! Reads testpmd's words for patterns and actions.
//!
//! A pattern has items such as `eth dst is 02:00:00:00:00:01` or `vlan vid is 100`. Actions are such as
//! `queue index 1`. A text may have several of them with ` / ` between. Numbers are as in C: decimal, hexadecimal with
//! `0x`, or octal with a leading `0`.

use super::{Action, Bits, Field, Item, ItemKind};

/// Bits of a MAC address.
const MAC_BITS: u32 = 48;

/// A name for a field, or for some bits of it.
pub(super) struct Name {
    /// The keyword.
    pub word: &'static str,
    /// The field.
    pub field: Field,
    /// Number of bits.
    pub bits: u32,
    /// Position of the lowest bit in the field.
    pub shift: u32,
}

const fn name(word: &'static str, field: Field, bits: u32, shift: u32) -> Name {
    Name { word, field, bits, shift }
}

static ETH: [Name; 3] =
    [name("src", Field::Src, MAC_BITS, 0), name("dst", Field::Dst, MAC_BITS, 0), name("type", Field::Type, 16, 0)];
static VLAN: [Name; 5] = [
    name("tci", Field::Tci, 16, 0),
    name("pcp", Field::Tci, 3, 13),
    name("dei", Field::Tci, 1, 12),
    name("vid", Field::Tci, 12, 0),
    name("inner_type", Field::InnerType, 16, 0),
];

/// The names that an item of this kind takes.
pub(super) fn names(kind: ItemKind) -> &'static [Name] {
    match kind {
        ItemKind::Eth => &ETH,
        ItemKind::Vlan => &VLAN,
    }
}

impl Name {
    /// A mask of all its bits, from bit 0 on.
    pub fn full(&self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    fn value(&self, word: &str) -> Result<u64, String> {
        if self.bits == MAC_BITS {
            return mac(word);
        }
        let value = number(word)?;
        if value > self.full() {
            return Err(format!("{value} is too large: {} is the largest", self.full()));
        }
        Ok(value)
    }

    /// Gives these bits a value.
    fn set(&self, part: &mut super::Part, value: u64) {
        let bits = part.entry(self.field).or_default();
        let mine = self.full() << self.shift;
        *bits = Bits { value: bits.value & !mine | value << self.shift, given: bits.given | mine };
    }
}

/// A number as C writes it: decimal, hexadecimal or octal.
fn number(word: &str) -> Result<u64, String> {
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if word.len() > 1 && word.starts_with('0') => (&word[1..], 8),
        None => (word, 10),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = Some(digits).filter(|_| plain).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    value.ok_or_else(|| format!("`{}` is not a number", word.escape_default()))
}

fn small<T: TryFrom<u64>>(word: &str, most: u64) -> Result<T, String> {
    let value = number(word)?;
    let fits = Some(value).filter(|value| *value <= most).and_then(|value| T::try_from(value).ok());
    fits.ok_or_else(|| format!("{value} is too large: {most} is the largest"))
}

fn mac(word: &str) -> Result<u64, String> {
    word.parse::<switch::model::MacAddr>()
        .map(switch::model::MacAddr::to_u64)
        .map_err(|_| format!("`{}` is not an address such as 02:00:00:00:00:01", word.escape_default()))
}

/// Splits texts into items or actions, and these into words.
fn parts(texts: &[String]) -> impl Iterator<Item = Vec<&str>> {
    texts.iter().flat_map(|text| text.split('/')).map(|text| text.split_whitespace().collect())
}

/// Reads the texts of a pattern.
///
/// # Errors
/// The mistake, with the item that has it.
pub fn pattern(texts: &[String]) -> Result<Vec<Item>, String> {
    let items = parts(texts).map(|words| item(&words).map_err(|why| at("pattern", &words, &why)));
    nonempty(items.collect::<Result<_, _>>()?, "pattern: it has no item")
}

/// Reads the texts of actions.
///
/// # Errors
/// The mistake, with the action that has it.
pub fn actions(texts: &[String]) -> Result<Vec<Action>, String> {
    let actions = parts(texts).map(|words| action(&words).map_err(|why| at("actions", &words, &why)));
    nonempty(actions.collect::<Result<_, _>>()?, "actions: there are none")
}

fn nonempty<T>(list: Vec<T>, why: &str) -> Result<Vec<T>, String> {
    if list.is_empty() { Err(why.to_owned()) } else { Ok(list) }
}

fn at(list: &str, words: &[&str], why: &str) -> String {
    format!("{list}: `{}`: {why}", words.join(" ").escape_default())
}

/// Reads an item: its kind, then `NAME is|spec|last|mask|prefix VALUE` any number of times.
fn item(words: &[&str]) -> Result<Item, String> {
    let kind = match words.first().copied() {
        Some("eth") => ItemKind::Eth,
        Some("vlan") => ItemKind::Vlan,
        _ => return Err("an item begins with eth or vlan".to_owned()),
    };
    let names = names(kind);
    let mut item = Item { kind, spec: Default::default(), last: Default::default(), mask: Default::default() };
    for words in words[1..].chunks(3) {
        let known = || names.iter().map(|name| name.word).collect::<Vec<_>>().join(", ");
        let name = names.iter().find(|name| name.word == words[0]).ok_or_else(|| {
            format!("`{}` is no field of {}: {} are", words[0].escape_default(), kind.word(), known())
        })?;
        let [_, how, value] = words else {
            return Err(format!("`{}` needs is, spec, last, mask or prefix, and a value", name.word));
        };
        match *how {
            "is" => {
                name.set(&mut item.spec, name.value(value)?);
                name.set(&mut item.mask, name.full());
            }
            "spec" => name.set(&mut item.spec, name.value(value)?),
            "last" => name.set(&mut item.last, name.value(value)?),
            "mask" => name.set(&mut item.mask, name.value(value)?),
            "prefix" => {
                let length = small::<u32>(value, u64::from(name.bits))?;
                name.set(&mut item.mask, name.full() & !(name.full() >> length));
            }
            other => {
                return Err(format!("`{}`: is, spec, last, mask or prefix is expected", other.escape_default()));
            }
        }
    }
    Ok(item)
}

fn action(words: &[&str]) -> Result<Action, String> {
    let sixteen = u64::from(u16::MAX);
    match words {
        ["jump", "group", value] => Ok(Action::Jump { group: small(value, u64::from(u32::MAX))? }),
        ["queue", "index", value] => Ok(Action::Queue { index: small(value, sixteen)? }),
        ["of_pop_vlan"] => Ok(Action::OfPopVlan),
        ["of_push_vlan", "ethertype", value] => Ok(Action::OfPushVlan { ethertype: small(value, sixteen)? }),
        ["of_set_vlan_vid", "vlan_vid", value] => Ok(Action::OfSetVlanVid { vlan_vid: small(value, 4095)? }),
        ["of_set_vlan_pcp", "vlan_pcp", value] => Ok(Action::OfSetVlanPcp { vlan_pcp: small(value, 7)? }),
        _ => Err("an action is `jump group N`, `queue index N`, `of_pop_vlan`, `of_push_vlan ethertype TYPE`, \
                  `of_set_vlan_vid vlan_vid VID` or `of_set_vlan_pcp vlan_pcp PCP`"
            .to_owned()),
    }
}
