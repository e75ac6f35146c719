//! The parsers: Go's examples, and noise.

use proptest::prelude::*;
use swarmlite_docker_api::stdcopy::{Decoder, FRAME_BYTES_MAX, Stream, encode};
use swarmlite_docker_api::{Filters, GoDuration, GoTime, ServiceSpec, SwarmSpec, unsupported_in_service_spec};

#[test]
fn durations_are_gos() {
    for (text, ns) in [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("-5s", -5_000_000_000),
        ("+5s", 5_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1h30m0s", 5_400_000_000_000),
        ("10ms", 10_000_000),
        ("11us", 11_000),
        ("12µs", 12_000),
        ("12μs", 12_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("2160h", 7_776_000_000_000_000),
        ("9223372036854775807ns", i64::MAX),
        ("-9223372036854775808ns", i64::MIN),
    ] {
        assert_eq!(text.parse(), Ok(GoDuration(ns)), "{text}");
    }
    for (text, message) in [
        ("", "time: invalid duration \"\""),
        ("5", "time: missing unit in duration \"5\""),
        ("s", "time: invalid duration \"s\""),
        (".s", "time: invalid duration \".s\""),
        ("1.2.3s", "time: invalid duration \"1.2.3s\""),
        ("5x", "time: unknown unit \"x\" in duration \"5x\""),
        ("1h 2m", "time: unknown unit \"h \" in duration \"1h 2m\""),
        ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
        ("--5s", "time: invalid duration \"--5s\""),
    ] {
        assert_eq!(text.parse::<GoDuration>().map_err(|e| e.to_string()), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn durations_print_as_go_prints_them() {
    for (ns, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (245_000_000_000, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (3_600_000_000_000, "1h0m0s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
        (i64::MAX, "2562047h47m16.854775807s"),
    ] {
        assert_eq!(GoDuration(ns).to_string(), text);
    }
}

#[test]
fn times_are_rfc_3339_in_utc() {
    for (text, back) in [
        ("2016-06-07T21:05:51.880065305Z", "2016-06-07T21:05:51.880065305Z"),
        ("2016-06-07T23:05:51.5+02:00", "2016-06-07T21:05:51.5Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ] {
        assert_eq!(text.parse::<GoTime>().expect("a time").to_string(), back);
    }
    assert_eq!(GoTime::from_unix_ns(1_500_000_000_000_000_001).to_string(), "2017-07-14T02:40:00.000000001Z");
    assert!(!GoTime::from_unix_ns(u64::MAX).is_zero());
    assert!("yesterday".parse::<GoTime>().is_err_and(|e| e.to_string().contains("\"yesterday\" is not a time")));
}

proptest! {
    #[test]
    fn every_duration_reads_back(ns in any::<i64>()) {
        prop_assert_eq!(GoDuration(ns).to_string().parse(), Ok(GoDuration(ns)));
    }

    #[test]
    fn every_time_reads_back(ns in any::<u64>()) {
        let time = GoTime::from_unix_ns(ns);
        prop_assert_eq!(time.to_string().parse(), Ok(time));
    }

    #[test]
    fn noise_is_an_error_and_never_a_panic(text in ".{0,64}", digits in "[-+.0-9a-zµ ]{0,24}") {
        for t in [&text, &digits] {
            drop(t.parse::<GoDuration>());
            drop(t.parse::<GoTime>());
            drop(Filters::parse(t));
            drop(serde_json::from_str::<ServiceSpec>(t));
        }
    }

    #[test]
    fn filters_read_back(all in proptest::collection::btree_map("[a-z_-]{1,8}", proptest::collection::btree_set(".{0,8}", 1..4), 0..4)) {
        let mut filters = Filters::new();
        for (name, values) in &all {
            for value in values {
                filters.add(name.clone(), value.clone());
            }
        }
        prop_assert_eq!(Filters::parse(&filters.to_json()), Ok(filters.clone()));
        for (name, values) in &all {
            let back: Vec<&str> = filters.values(name).collect();
            prop_assert_eq!(back, values.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn frames_survive_and_noise_is_an_error(data in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
        let wire = encode(Stream::Stderr, &data);
        let mut decoder = Decoder::new();
        let (a, b) = wire.split_at(cut.min(wire.len()));
        decoder.feed(a);
        let early = decoder.next_frame().expect("a good frame");
        decoder.feed(b);
        let frame = match early { Some(f) => Some(f), None => decoder.next_frame().expect("a good frame") };
        prop_assert_eq!(frame.map(|f| f.data.to_vec()).unwrap_or_default(), data.clone());
        let mut decoder = Decoder::new();
        decoder.feed(&data);
        while let Ok(Some(frame)) = decoder.next_frame() {
            prop_assert!(frame.data.len() <= FRAME_BYTES_MAX);
        }
    }

    /// Any JSON of roughly the right shape is read or refused, and judged, without a panic.
    #[test]
    fn specs_of_noise_are_judged(json in spec_like()) {
        let text = json.to_string();
        if let Ok(spec) = serde_json::from_str::<ServiceSpec>(&text) {
            prop_assert!(unsupported_in_service_spec(&spec).is_none_or(|u| !u.field.is_empty()));
            let again: ServiceSpec = serde_json::from_value(serde_json::to_value(&spec).expect("writable")).expect("what we write, we read");
            prop_assert_eq!(again, spec);
        }
        if let Ok(spec) = serde_json::from_str::<SwarmSpec>(&text) {
            let again: SwarmSpec = serde_json::from_value(serde_json::to_value(&spec).expect("writable")).expect("what we write, we read");
            prop_assert_eq!(again, spec);
        }
    }
}

/// JSON whose keys are Docker's and whose values are anything.
fn spec_like() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z/:{}.-]{0,12}".prop_map(Into::into),
    ];
    let keys = proptest::sample::select(vec![
        "Name",
        "Labels",
        "TaskTemplate",
        "ContainerSpec",
        "Image",
        "Mounts",
        "Type",
        "Target",
        "Resources",
        "Limits",
        "NanoCPUs",
        "Mode",
        "Replicated",
        "Replicas",
        "UpdateConfig",
        "Delay",
        "MaxFailureRatio",
        "EndpointSpec",
        "Ports",
        "TargetPort",
        "Healthcheck",
        "Interval",
        "Privileges",
        "Placement",
        "Platforms",
        "Raft",
        "CAConfig",
        "ExternalCAs",
        "Env",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((keys.clone(), inner), 0..6)
                .prop_map(|all| serde_json::Value::Object(all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}
