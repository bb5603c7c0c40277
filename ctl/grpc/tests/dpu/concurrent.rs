//! Many clients at once. Each gets correct answers, and in the end the tables agree with the state file.

use std::collections::{BTreeMap, BTreeSet};

use ctl_grpc::proto::classfier_change::Change;
use ctl_grpc::proto::*;
use kit::METHODS;
use prost::Message;
use switch::model::Capacity;

use crate::messages::{Entropy, request};
use crate::random::STATUSES;
use crate::rig::*;

const CLIENTS: u32 = 4;
const STEPS: usize = 2000;

/// A client with its own meters and rules, which knows their expected state.
struct Client<'a> {
    rig: &'a Rig,
    no: u32,
    noise: u64,
    /// Rates by id.
    meters: BTreeMap<u32, u32>,
    /// Meters by rule index.
    rules: BTreeMap<i32, Option<u32>>,
}

impl Client<'_> {
    /// Xorshift64.
    fn random(&mut self, below: u32) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 32) as u32 % below
    }

    /// Indices of two rules that are always written and deleted together.
    fn pair(client: u32) -> [i32; 2] {
        [2008, 2009].map(|place| place + 10 * client.cast_signed())
    }

    async fn expect(&self, method: &str, message: &(impl Message + std::fmt::Debug), status: u32) {
        let said = self.rig.say(method, message).await;
        assert_eq!(said.status, status, "{method} {message:?}: {}", said.error);
    }

    fn users(&self, id: u32) -> u32 {
        self.rules.values().filter(|meter| **meter == Some(id)).count() as u32
    }

    async fn use_a_meter(&mut self) {
        let id = 10_000 + 100 * self.no + self.random(3);
        let rate = 1 + self.random(1000);
        let there = self.meters.contains_key(&id);
        match self.random(4) {
            0 => {
                self.expect("Meter/Add", &meter(id, rate), if there { 17 } else { 0 }).await;
                self.meters.entry(id).or_insert(rate);
            }
            1 => {
                let update = MeterUpdateRequest { id: Some(id), rate: Some(rate), ..MeterUpdateRequest::default() };
                self.expect("Meter/Update", &update, if there { 0 } else { 2 }).await;
                self.meters.entry(id).and_modify(|kept| *kept = rate);
            }
            2 => {
                let status = if !there {
                    2
                } else if self.users(id) > 0 {
                    16
                } else {
                    0
                };
                self.expect("Meter/Del", &MeterDelRequest { id: Some(id) }, status).await;
                if status == 0 {
                    self.meters.remove(&id);
                }
            }
            _ if there => {
                let seen: MeterGetResponse = self.rig.ask("Meter/Get", &MeterGetRequest { id: Some(id) }).await;
                assert_eq!((seen.rate(), seen.rules()), (self.meters[&id], self.users(id)));
            }
            _ => self.expect("Meter/Get", &MeterGetRequest { id: Some(id) }, 2).await,
        }
    }

    async fn use_a_rule(&mut self) {
        let place = 2000 + 10 * self.no.cast_signed() + self.random(5).cast_signed();
        let id = 10_000 + 100 * self.no + self.random(3);
        match self.random(3) {
            0 => {
                let meter = Some(id).filter(|_| id % 100 != 2);
                let status = if meter.is_none_or(|id| self.meters.contains_key(&id)) { 0 } else { 2 };
                let write = rule(place, any(place), RuleAction { meter, ..to(-1) });
                self.expect("TrafficControl/ClassfierWrite", &write, status).await;
                if status == 0 {
                    self.rules.insert(place, meter);
                }
            }
            1 => {
                let status = if self.rules.remove(&place).is_some() { 0 } else { 2 };
                let delete = ClassfierDeleteRequest { key_index: Some(place) };
                self.expect("TrafficControl/ClassfierDelete", &delete, status).await;
            }
            _ => {
                let read = ClassfierReadRequest { key_index: Some(place) };
                match self.rules.get(&place) {
                    None => self.expect("TrafficControl/ClassfierRead", &read, 2).await,
                    Some(meter) => {
                        let seen: ClassfierReadResponse = self.rig.ask("TrafficControl/ClassfierRead", &read).await;
                        assert_eq!(seen.action.unwrap().meter, *meter);
                    }
                }
            }
        }
    }

    async fn use_the_pair(&mut self) {
        let pair = Self::pair(self.no);
        let there = self.rules.contains_key(&pair[0]);
        let change =
            |place| if there { Change::DeleteIndex(place) } else { Change::Write(rule(place, any(0), to(-1))) };
        let changes = pair.map(|place| ClassfierChange { change: Some(change(place)) }).to_vec();
        self.expect("TrafficControl/ClassfierBatch", &ClassfierBatchRequest { changes }, 0).await;
        if there {
            self.rules.retain(|place, _| !pair.contains(place));
        } else {
            self.rules.extend(pair.map(|place| (place, None)));
        }
    }

    /// Two rules that another client changes together are seen both or not at all.
    async fn look_at_a_pair(&mut self) {
        let pair = Self::pair(self.random(CLIENTS));
        let query = ClassfierQueryRequest { from: Some(pair[0].cast_unsigned()), limit: Some(2) };
        let seen: ClassfierQueryResponse = self.rig.ask("TrafficControl/ClassfierQuery", &query).await;
        let places = seen.rules.iter().map(|rule| rule.mask_rule_key.as_ref().unwrap().key_index());
        assert_ne!(places.filter(|place| pair.contains(place)).count(), 1, "half a batch");
    }

    /// A random request about objects that all clients share.
    async fn meddle(&mut self) {
        // A batch could clear the rules of other clients.
        let methods: Vec<_> = METHODS.iter().filter(|method| !method.ends_with("Batch")).collect();
        let method = methods[self.random(methods.len() as u32) as usize];
        let entropy: Vec<u8> = (0..200).map(|_| self.random(256) as u8).collect();
        let said = self.rig.say_bytes(method, &request(method, &mut Entropy(&entropy))).await;
        assert!(STATUSES.contains(&said.status), "{method}: {said:?}");
    }

    async fn work(mut self) {
        for _ in 0..STEPS {
            match self.random(8) {
                0 | 1 => self.use_a_meter().await,
                2 | 3 => self.use_a_rule().await,
                4 => self.use_the_pair().await,
                5 => self.look_at_a_pair().await,
                _ => self.meddle().await,
            }
        }
        for (id, rate) in &self.meters {
            let seen: MeterGetResponse = self.rig.ask("Meter/Get", &MeterGetRequest { id: Some(*id) }).await;
            assert_eq!((seen.rate(), seen.rules()), (*rate, self.users(*id)));
        }
    }
}

#[test]
fn many_clients_at_once_do_not_disturb_each_other() {
    let rig = Rig::sized(Capacity { ports: 8, ..Capacity::default() });
    std::thread::scope(|scope| {
        for no in 0..CLIENTS {
            let noise = 0x9e37_79b9_7f4a_7c15 ^ u64::from(no + 1);
            let client = Client { rig: &rig, no, noise, meters: BTreeMap::new(), rules: BTreeMap::new() };
            scope.spawn(move || {
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(client.work());
            });
        }
    });
    let ports = rig.service.ports();
    let uuids: BTreeSet<_> = ports.iter().map(|port| port.spec.uuid()).collect();
    let numbers: BTreeSet<_> = ports.iter().map(|port| port.spec.vport).collect();
    assert_eq!((uuids.len(), numbers.len()), (ports.len(), ports.len()));
    rig.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_want_the_same_one_gets_it() {
    let rig = Rig::new();
    for round in 0..20 {
        let uuid = format!("nic-{round}");
        let (wish, other) = (nic(&uuid), NewPortRequest { vport: Some(round), ..nic(&format!("other-{round}")) });
        let (new, add) = ("ElasticNic/NewPort", meter(round, 1));
        let said = tokio::join!(
            async { [rig.say(new, &wish).await.status, rig.say(new, &wish).await.status] },
            async { [rig.say("Meter/Add", &add).await.status, rig.say("Meter/Add", &add).await.status] },
            rig.say(new, &wish),
            rig.say("Meter/Add", &add),
        );
        let (mut ports, mut meters) = (said.0.to_vec(), said.1.to_vec());
        ports.push(said.2.status);
        meters.push(said.3.status);
        for mut statuses in [ports, meters] {
            statuses.sort_unstable();
            assert_eq!(statuses, [0, 17, 17]);
        }
        assert_eq!(rig.say(new, &other).await.status, 17, "{round} is the lowest free number");
    }
    rig.assert_kept();
}
