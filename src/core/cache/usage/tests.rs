//! Reservations, and what they count as.

use super::*;

#[test]
fn a_reservation_counts_as_its_kind_until_it_is_retired() {
    let usage = Arc::new(Usage::default());
    for kind in [Kind::Refresh, Kind::Value, Kind::Negative] {
        let reservation = Reservation::new(&usage, kind, 1000);
        assert_eq!((usage.of(kind), usage.of(Kind::Flight)), (1000, 0));
        assert_eq!(
            format!("{reservation:?}"),
            format!("Reservation(1000 bytes, {kind:?})")
        );

        reservation.retire();
        assert_eq!((usage.of(kind), usage.of(Kind::Flight)), (0, 1000));
        assert_eq!(reservation.bytes(), 1000);
        drop(reservation);
        assert_eq!(usage.of(Kind::Flight), 0);
    }
}
