//! A line of output as Docker sends it.

use crate::swarm::LogLine;
use bytes::{BufMut as _, Bytes, BytesMut};
use docker_api::{GoTime, stdcopy};
use model::Task;

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
            text.put_slice(details(task).as_bytes());
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

fn details(task: &Task) -> String {
    let escape = |s: &str| form_urlencoded::byte_serialize(s.as_bytes()).collect::<String>();
    let node = task.node_id.as_ref().map_or("", |n| n.as_str());
    [
        ("com.docker.swarm.node.id", node),
        ("com.docker.swarm.service.id", task.service_id.as_str()),
        ("com.docker.swarm.task.id", task.id.as_str()),
    ]
    .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(fixed_nanos(1_500_000_000_000_000_000), "2017-07-14T02:40:00.000000000Z");
        assert_eq!(fixed_nanos(1_500_000_000_000_000_120), "2017-07-14T02:40:00.000000120Z");
    }
}
