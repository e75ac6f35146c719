//! What number 5 added: authorities elsewhere and their marks, Raft's settings, and the runs that a schedule has open.

use super::{cluster, map, node, service};
use model::*;
use swarmlite_store::{Object, Transaction};

pub(crate) fn objects() -> Vec<Object> {
    let mut cluster = cluster();
    cluster.spec.raft = RaftSettings {
        keep_old_snapshots: 3,
        log_entries_for_slow_followers: 700,
        ticks: RaftTicks { heartbeat: 2, election: 30 },
    };
    cluster.spec.external_cas = vec![ExternalCa {
        url: "https://ca:8888/api/v1/cfssl/sign".into(),
        options: map("option"),
        ca_cert_pem: "root".into(),
    }];
    cluster.security.grants = Some(GrantKey { key: [9; 32], required: true });
    let mut node = node();
    let description = node.description.get_or_insert_default();
    description.tls = Some(NodeTls { granted: true, ..NodeTls::default() });
    let mut service = service();
    service.progress.cron = Some(CronState { started: Some(8), open: [(7, 2), (8, 0)].into(), ..CronState::default() });
    vec![cluster.into(), node.into(), service.into()]
}

pub(crate) fn transaction() -> Transaction {
    let mut transaction = Transaction::new(Timestamp(95));
    for object in objects() {
        transaction.create(object);
    }
    transaction
}
