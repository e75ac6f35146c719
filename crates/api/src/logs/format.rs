//! A line of output as Docker sends it.

use crate::swarm::LogLine;
use bytes::{BufMut as _, Bytes, BytesMut};
use docker_api::{GoTime, stdcopy};
use model::Task;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;

/// What Go escapes in a query, but for the space, which becomes a plus.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// Raw instead of in frames: there is only one stream.
    pub(super) tty: bool,
    /// With the time in front.
    pub(super) timestamps: bool,
    /// With node, service and task in front.
    pub(super) details: bool,
}

// === impl Format ===

impl Format {
    /// One line of a task.
    pub(super) fn line(self, task: &Task, line: &LogLine) -> Bytes {
        let mut text = BytesMut::new();
        if self.timestamps {
            text.put_slice(fixed_nanos(line.at_unix_ns).as_bytes());
            text.put_u8(b' ');
        }
        if self.details {
            text.put_slice(details(task, &line.details).as_bytes());
            text.put_u8(b' ');
        }
        text.put_slice(&line.data);
        let stream = if line.stderr { stdcopy::Stream::Stderr } else { stdcopy::Stream::Stdout };
        if self.tty { text.freeze() } else { stdcopy::encode(stream, &text) }
    }

    /// The server's own word, at the end.
    pub(super) fn error(self, text: &str) -> Bytes {
        if self.tty {
            Bytes::from(format!("{text}\r\n"))
        } else {
            stdcopy::encode(stdcopy::Stream::SystemErr, text.as_bytes())
        }
    }
}

/// RFC 3339 with nine digits, so that lines are as long as each other.
fn fixed_nanos(unix_ns: u64) -> String {
    format!("{:.9}", GoTime::from_unix_ns(unix_ns).timestamp())
}

/// `KEY=VALUE,…` in the order of the keys: the container's own, and over them what the swarm says.
fn details(task: &Task, own: &BTreeMap<String, String>) -> String {
    let node = task.node_id.as_ref().map_or("", |n| n.as_str());
    let mut all: BTreeMap<&str, &str> = own.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    all.extend([
        ("com.docker.swarm.node.id", node),
        ("com.docker.swarm.service.id", task.service_id.as_str()),
        ("com.docker.swarm.task.id", task.id.as_str()),
    ]);
    let pairs: Vec<String> = all.into_iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    pairs.join(",")
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_gos() {
        for (text, escaped) in [
            ("a-b_c.d~e", "a-b_c.d~e"),
            ("a b", "a+b"),
            ("a+b*c", "a%2Bb%2Ac"),
            ("k=v,w", "k%3Dv%2Cw"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(fixed_nanos(1_500_000_000_000_000_000), "2017-07-14T02:40:00.000000000Z");
        assert_eq!(fixed_nanos(1_500_000_000_000_000_120), "2017-07-14T02:40:00.000000120Z");
    }
}
