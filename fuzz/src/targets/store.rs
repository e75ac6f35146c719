//! What the Raft log and snapshots carry.

use super::{Taker, Target, must};
use ::store::{Conflict, Store, Transaction};
use model::{NodeDescription, Task, TaskStatus, persisted};

const SNAPSHOT: &[u8] = include_bytes!("../../../crates/store/tests/golden/snapshot-1.msgpack");
const TRANSACTION: &[u8] = include_bytes!("../../../crates/store/tests/golden/transaction-1.msgpack");

pub(super) const TARGET: Target = Target {
    name: "store",
    about: "transactions, snapshots and objects in their persisted form: store::Transaction, store::Store, model",
    corpus,
    words: &[
        b"\xdc\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xde\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x81",
        b"\x91",
        b"\xc0",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xd3\x80\0\0\0\0\0\0\0",
        b"\xa6format\x01",
        b"\xa6format\x02",
        b"\xa3Put",
        b"\xa6Remove",
        b"\xa4Task",
        b"\xa4Node",
        b"\xa7Cluster",
        b"\xa7Service",
    ],
    bytes_max: 64 * 1024,
    start,
};

/// The first byte says what the rest is.
fn corpus() -> Vec<Vec<u8>> {
    let named = |mode: u8, bytes: &[u8]| [&[mode][..], bytes].concat();
    let status = rmp_serde::to_vec_named(&TaskStatus::default()).expect("plain data encodes");
    let description = rmp_serde::to_vec_named(&NodeDescription::default()).expect("plain data encodes");
    vec![named(0, TRANSACTION), named(1, SNAPSHOT), named(2, &status), named(3, &description), named(4, b"\xa4text")]
}

fn start() -> Taker {
    let store = Store::new();
    store.restore(SNAPSHOT).expect("the golden snapshot restores");
    let mut index = store.snapshot().index();
    Box::new(move |input| {
        let Some((mode, bytes)) = input.split_first() else { return Ok(()) };
        match mode % 5 {
            0 => {
                let Ok(transaction) = Transaction::decode(bytes) else { return Ok(()) };
                index += 1;
                let before = Store::encode(&store.snapshot());
                let refused = store.apply(index, &transaction).is_err();
                let after = store.snapshot();
                must(after.index() == index, || "the index did not rise".into())?;
                let again = Store::new();
                again.restore(&Store::encode(&after)).map_err(|e| format!("what was applied cannot be read: {e}"))?;
                must(Store::encode(&again.snapshot()) == Store::encode(&after), || "a state does not survive".into())?;
                if refused {
                    // But for the index, nothing has changed.
                    let fresh = Store::new();
                    fresh.restore(&before).map_err(|e| e.to_string())?;
                    fresh.advance(index);
                    must(Store::encode(&fresh.snapshot()) == Store::encode(&after), || "a conflict changed".into())?;
                }
            }
            1 => {
                let store = Store::new();
                if store.restore(bytes).is_ok() {
                    let again = Store::new();
                    let encoded = Store::encode(&store.snapshot());
                    again.restore(&encoded).map_err(|e| format!("what was restored cannot be read: {e}"))?;
                    must(Store::encode(&again.snapshot()) == encoded, || "a snapshot does not survive".into())?;
                } else {
                    must(store.snapshot().objects().next().is_none(), || "half a snapshot was taken".into())?;
                }
            }
            2 => drop(persisted::decode::<TaskStatus>(bytes)),
            3 => drop(persisted::decode::<NodeDescription>(bytes)),
            _ => drop((persisted::decode::<Task>(bytes), persisted::decode::<Conflict>(bytes))),
        }
        Ok(())
    })
}
