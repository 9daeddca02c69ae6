//! A service that limits its clients: `serve(&[b"poem"]).deny(&["192.0.2.0/24"])`.

use super::service::Builder;
use poetry::admission::{AdmissionSettings, Nets, parse_net};
use std::num::NonZeroU32;

fn nets(texts: &[&str]) -> Nets {
    Nets::new(texts.iter().map(|text| parse_net(text).unwrap()))
}

impl<T> Builder<T> {
    fn admission(&mut self) -> &mut AdmissionSettings {
        self.common.admission.get_or_insert_default()
    }

    pub fn allow(mut self, texts: &[&str]) -> Self {
        self.admission().lists.allow = Some(nets(texts));
        self
    }

    pub fn deny(mut self, texts: &[&str]) -> Self {
        self.admission().lists.deny = nets(texts);
        self
    }

    /// Peers that send a PROXY header.
    pub fn proxy_protocol(mut self, texts: &[&str]) -> Self {
        self.admission().lists.proxies = nets(texts);
        self
    }

    pub fn max_per_address(mut self, most: u32) -> Self {
        self.admission().max_per_address = NonZeroU32::new(most);
        self
    }

    pub fn client_rate(mut self, rate: &str) -> Self {
        self.admission().rate = Some(rate.parse().unwrap());
        self
    }

    pub fn refusal(mut self, text: &str) -> Self {
        self.admission().text = Some(text.parse().unwrap());
        self
    }
}
