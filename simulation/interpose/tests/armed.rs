//! Armed, everything that asks the C library gets what the seed says; unarmed, nothing changes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // the back doors are what is tested

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a thread sees of hash map seeds and of the `rand` crate. A thread each: both are cached by thread.
fn randomness(seed: Option<u64>) -> (Vec<u32>, u64) {
    let look = move || {
        if let Some(seed) = seed {
            swarmlite_interpose::arm(seed);
        }
        let map: HashMap<u32, ()> = (0..64).map(|n| (n, ())).collect();
        (map.into_keys().collect(), rand::random())
    };
    std::thread::spawn(look).join().expect("it does not panic")
}

#[test]
fn an_armed_thread_has_the_randomness_of_its_seed() {
    assert_eq!(randomness(Some(7)), randomness(Some(7)));
    assert_ne!(randomness(Some(7)), randomness(Some(8)));
    assert_ne!(randomness(None), randomness(None));
}

#[test]
fn an_armed_thread_has_the_clocks_that_it_was_given() {
    let other = Instant::now();
    std::thread::spawn(|| {
        swarmlite_interpose::arm(1);
        swarmlite_interpose::set_clocks(5_000_000_000, 1_700_000_000_500_000_000);
        let then = Instant::now();
        swarmlite_interpose::set_clocks(7_250_000_000, 1_600_000_000_000_000_000);
        assert_eq!(then.elapsed(), Duration::from_millis(2250));
        assert_eq!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), Duration::from_secs(1_600_000_000));
        swarmlite_interpose::disarm();
        assert!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() > Duration::from_secs(1_600_000_000));
    })
    .join()
    .expect("it does not panic");
    assert!(other.elapsed() < Duration::from_secs(60));
}
