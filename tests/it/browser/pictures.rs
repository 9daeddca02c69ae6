//! Pictures of the page: for the README, and for eyes.

use super::open;
use super::scene::{calm_proxy, proxy_in_trouble, server};
use std::path::Path;

/// Takes the picture of the README again, of a proxy in trouble:
/// `cargo test --test it browser::pictures::takes_the -- --ignored`.
#[test]
#[ignore = "writes docs/status.png"]
fn takes_the_picture_of_the_readme() {
    let Some((mut browser, _stand_in)) = open(proxy_in_trouble()) else {
        return;
    };
    browser.until("$('flights').textContent.includes('/s')");

    // From the top to the upstreams: what is needed first.
    let end = "$('upstreams').closest('section').getBoundingClientRect().bottom";
    let height = browser.see(end);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    browser.picture(&folder.join("status.png"), height.as_f64());
}

/// Pictures of all kinds, to look at:
/// `PICTURES=/tmp/folder cargo test --test it browser::pictures -- --ignored`.
#[test]
#[ignore = "for eyes"]
fn takes_pictures_to_look_at() {
    let folder = std::env::var("PICTURES").expect("PICTURES names a folder");
    let scenes = [
        ("trouble", proxy_in_trouble()),
        ("calm", calm_proxy()),
        ("serve", server()),
    ];
    for (name, scene) in scenes {
        let Some((mut browser, _stand_in)) = open(scene) else {
            return;
        };
        for (kind, width, scheme) in [
            ("light", 1320, "light"),
            ("dark", 1320, "dark"),
            ("phone", 390, "light"),
        ] {
            browser.scheme(scheme);
            browser.size(width, 900);
            browser.until(&format!("document.documentElement.clientWidth === {width}"));
            browser.see("new Promise((done) => setTimeout(() => done(1), 1200))");
            browser.picture(&Path::new(&folder).join(format!("{name}-{kind}.png")), None);
        }
    }
}
