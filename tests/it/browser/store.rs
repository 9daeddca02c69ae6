//! What the page shows of a store, of a fleet, and of what is kept warm.

use super::scene::{calm_proxy, proxy_with_store};
use super::{assert_quiet, open};
use poetry::control::{FleetCounts, StoreState, WarmCounts};
use serde_json::json;

#[test]
fn a_store_is_shown_with_its_state_and_its_figures() {
    let Some((mut browser, stand_in)) = open(proxy_with_store()) else {
        return;
    };
    let cell = |name: &str| format!("#store td[data-name='{name}']");
    let visible = "$('store').getClientRects().length > 0";
    assert_eq!(browser.see(visible), json!(true));
    let fleet = "$('fleet').getClientRects().length > 0";
    assert_eq!(browser.see(fleet), json!(false));
    assert_eq!(browser.text(&cell("Where")), "/var/cache/poetry/poems");
    assert!(browser.text(&cell("State")).starts_with("in use since "));
    for (name, value) in [
        ("Poems", "20\u{2009}391"),
        ("Found", "1\u{2009}204"),
        ("Found, stale", "17"),
        ("Not found", "3\u{2009}821"),
        ("Too late", "2"),
        ("Written", "3\u{2009}790"),
        ("Not written", "0"),
        ("Errors", "0"),
    ] {
        assert_eq!(browser.text(&cell(name)), value, "{name}");
    }
    assert_eq!(
        browser.text("#store-of"),
        "96.3\u{2009}MiB of 1.0\u{2009}GiB"
    );

    for (state, words) in [
        (StoreState::Unwritable, "not written since "),
        (StoreState::Off, "not used since "),
    ] {
        let mut scene = stand_in.scene();
        let store = scene.snapshot.store.as_mut().unwrap();
        store.state = state;
        store.name = "<img src=x onerror=alert(1)>".into();
        store.dropped = 7;
        drop(scene);
        let text = format!("document.querySelector(\"{}\").textContent", cell("State"));
        browser.until(&format!("{text}.startsWith('{words}')"));
    }
    assert_eq!(browser.text(&cell("Not written")), "7");
    assert_eq!(browser.see("document.images.length"), json!(0));

    browser.size(360, 800);
    browser.until("document.documentElement.clientWidth === 360");
    let overflow = "document.documentElement.scrollWidth > 360";
    assert_eq!(browser.see(overflow), json!(false));

    stand_in.scene().snapshot.store = None;
    browser.until(&format!("!({visible})"));
    assert_quiet(&browser, &stand_in);
}

#[test]
fn a_fleet_on_a_phone_is_a_column() {
    let mut scene = proxy_with_store();
    let store = scene.snapshot.store.as_mut().unwrap();
    store.name = "redis://poetry@store.of-a-long-name.example:6379/0".into();
    store.fleet = Some(FleetCounts {
        follows: 31_000,
        leads: 97_000,
        deposed: 3,
        purges_owed: 2,
        ..FleetCounts::default()
    });
    let Some((mut browser, stand_in)) = open(scene) else {
        return;
    };

    browser.size(360, 800);
    browser.until("document.documentElement.clientWidth === 360");
    let overflow = "document.documentElement.scrollWidth > 360";
    assert_eq!(browser.see(overflow), json!(false));

    // What is wrong is marked, and what is 0 is not.
    let marked = "[...$('fleet').querySelectorAll('td:has(.err)')].map((td) => td.dataset.name)";
    assert_eq!(browser.see(marked), json!(["Lease lost", "Purges owed"]));
    stand_in.scene().snapshot.store.as_mut().unwrap().fleet = None;
    browser.until("!$('fleet').getClientRects().length");
    assert_quiet(&browser, &stand_in);
}

#[test]
fn what_is_kept_warm_stands_below_the_memory() {
    let Some((mut browser, stand_in)) = open(calm_proxy()) else {
        return;
    };
    assert!(!browser.text("#cache").contains("kept warm"));

    let mut warm = WarmCounts {
        fresh: 1598,
        failed: 2,
        waiting: 40,
    };
    stand_in.scene().snapshot.warm = Some(warm);
    browser.until("$('cache').textContent.includes('kept warm2 failed, 40 waiting')");
    assert!(browser.text("#cache").ends_with("1\u{2009}598 fresh"));

    (warm.fresh, warm.failed, warm.waiting) = (1640, 0, 0);
    stand_in.scene().snapshot.warm = Some(warm);
    browser.until("$('cache').lastElementChild.previousElementSibling.textContent === ''");
    assert_quiet(&browser, &stand_in);
}
