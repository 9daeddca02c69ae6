//! How a metric is written: its head once, then a line for each of its label values.

use crate::control::Histogram;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt::Result;

/// A metric: all series of one name.
pub(super) struct Family {
    /// Without its unit, and without the `_total` of a counter.
    pub name: &'static str,
    pub unit: Option<Unit>,
    /// What it counts, in words.
    pub help: &'static str,
}

/// Writes metrics one after the other.
pub(super) struct Families<'a>(pub DescriptorEncoder<'a>);

/// A metric without labels.
pub(super) const NO_LABELS: [(&str, &str); 0] = [];

impl Family {
    /// A metric that counts things.
    pub const fn new(name: &'static str, help: &'static str) -> Family {
        let unit = None;
        Family { name, unit, help }
    }

    /// A metric in bytes.
    pub const fn bytes(name: &'static str, help: &'static str) -> Family {
        let unit = Some(Unit::Bytes);
        Family { name, unit, help }
    }

    /// A metric in seconds.
    pub const fn seconds(name: &'static str, help: &'static str) -> Family {
        let unit = Some(Unit::Seconds);
        Family { name, unit, help }
    }
}

impl Families<'_> {
    /// A number that only rises: one for each set of labels.
    pub fn counter<L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> Result {
        let mut head = self.head(family, MetricType::Counter)?;
        for (labels, number) in series {
            let mut line = head.encode_family(&labels)?;
            line.encode_counter::<NoLabelSet, _, u64>(&number, None)?;
        }
        Ok(())
    }

    /// A number that rises, with a fraction.
    pub fn seconds_counter(&mut self, family: &Family, seconds: f64) -> Result {
        let mut head = self.head(family, MetricType::Counter)?;
        head.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }

    /// A number that rises and falls: one for each set of labels.
    pub fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Result {
        let mut head = self.head(family, MetricType::Gauge)?;
        for (labels, number) in series {
            head.encode_family(&labels)?.encode_gauge(&number)?;
        }
        Ok(())
    }

    /// A distribution: one for each set of labels.
    pub fn histogram<'h, L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> Result {
        let mut head = self.head(family, MetricType::Histogram)?;
        for (labels, histogram) in series {
            write_histogram(head.encode_family(&labels)?, histogram)?;
        }
        Ok(())
    }

    /// What doesn't change, as labels.
    pub fn info(&mut self, family: &Family, labels: &impl EncodeLabelSet) -> Result {
        self.head(family, MetricType::Info)?.encode_info(labels)
    }

    fn head<'s>(
        &'s mut self,
        family: &'s Family,
        kind: MetricType,
    ) -> std::result::Result<MetricEncoder<'s>, std::fmt::Error> {
        let unit = family.unit.as_ref();
        self.0
            .encode_descriptor(family.name, family.help, unit, kind)
    }
}

/// The encoder adds the buckets up.
fn write_histogram(mut line: MetricEncoder<'_>, histogram: &Histogram) -> Result {
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    let counts = histogram.counts.iter().copied().chain(std::iter::repeat(0));
    let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();

    line.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)
}
