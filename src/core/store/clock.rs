//! The clocks of this machine.

use super::age::ClockReading;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// Reads the clocks.
pub type ReadClocks = Arc<dyn Fn() -> ClockReading + Send + Sync>;

/// The clocks of this machine. Where it does not say when it was started, each process
/// counts as a start of its own, so that the wall clock decides.
pub fn system_clock() -> ReadClocks {
    Arc::new(|| ClockReading {
        boot: *BOOT,
        boot_ms: since_boot(),
        wall_ms: since_1970(),
    })
}

static BOOT: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = id.ok().and_then(|id| parsed(&id));
    id.unwrap_or_else(|| fastrand::u128(..).to_ne_bytes())
});

/// The number in a text such as `5f0c...-...-...`.
fn parsed(id: &str) -> Option<[u8; 16]> {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    let is_whole = digits.len() == 32;
    let number = u128::from_str_radix(&digits, 16).ok();
    number.filter(|_| is_whole).map(u128::to_be_bytes)
}

#[cfg(target_os = "linux")]
fn since_boot() -> i64 {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::Boottime);
    let seconds = time.tv_sec.saturating_mul(1000);
    seconds.saturating_add(time.tv_nsec as i64 / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> i64 {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    START.elapsed().as_millis() as i64
}

fn since_1970() -> i64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| time.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_of_the_machine_is_told_by_its_number() {
        let id = parsed("00000000-0000-0000-0000-0000000001ff\n").expect("a number");
        assert_eq!(id[13..], [0, 1, 255]);
        assert_eq!(parsed("none"), None);
        assert_eq!(parsed(""), None);
    }
}
