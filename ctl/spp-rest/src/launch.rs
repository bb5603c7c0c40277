//! `PUT /v1/primary/launch`: reads the options that an SPP process would be started with.

use ctl_spp::launch::joined;
use ctl_spp::launch::{Launch, Side, Wrong, kind_of};
use ctl_spp::{Proc, ProcType};
use serde_json::Value;

use super::Refusal;
use super::body::{Body, invalid, port_of, required, whole};

/// Reads the body of a launch.
pub(super) fn read(body: &Body) -> Result<Launch, Refusal> {
    body.need_all(&["client_id", "proc_name", "eal", "app"])?;
    let name = body.need("proc_name")?;
    let known = name.as_str().filter(|name| name.starts_with("spp_")).and_then(|name| kind_of(name).ok());
    let proc = Proc { kind: known.ok_or_else(|| invalid("proc_name", name))?, id: number(body, "client_id")? };
    let (eal, app) = (object(body, "eal")?, object(body, "app")?);
    if let Some(port) = app.get("-c").filter(|_| proc.kind == ProcType::Pcap) {
        port_of("-c", &port.as_str().map_or_else(|| port.clone(), |text| joined(text).into()))?;
    }
    let (eal_texts, app_texts) = (texts(&eal), texts(&app));
    match Launch::read(proc, pairs(&eal_texts), pairs(&app_texts)) {
        Ok(launch) => Ok(launch),
        Err(Wrong::Missing(option)) => Err(required(option)),
        Err(Wrong::Value(side, option, _)) => {
            let of = match side {
                Side::Eal => eal,
                Side::App => app,
            };
            Err(invalid(&option, of.need(&option)?))
        }
    }
}

fn number(body: &Body, key: &str) -> Result<u32, Refusal> {
    let value = body.need(key)?;
    whole(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| invalid(key, value))
}

fn object(body: &Body, key: &str) -> Result<Body, Refusal> {
    let value = body.need(key)?;
    value.as_object().map(Body::of).ok_or_else(|| invalid(key, value))
}

/// Options with their values as texts, as on a command line. A value that is neither a text nor a number becomes its
/// JSON. No option that counts takes that, so it is refused there.
fn texts(options: &Body) -> Vec<(&str, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    options.pairs().map(|(option, value)| (option.as_str(), text(value))).collect()
}

fn pairs<'a>(texts: &'a [(&'a str, String)]) -> impl Iterator<Item = (&'a str, &'a str)> {
    texts.iter().map(|(option, value)| (*option, value.as_str()))
}
