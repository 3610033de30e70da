//! The figures in the text formats of Prometheus and OpenMetrics: who wants which, and how a family of
//! metrics is written. It does not know which families there are.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelValue, NoLabelSet,
        prometheus_text, text,
    },
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    http::{HeaderMap, HeaderValue, header},
    metrics::Distribution,
};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own, version 0.0.4, which everything understands.
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// What the client asks for.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let open = accepted.flat_map(|value| value.split(',')).any(|range| {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            parts.next().as_deref() == Some("application/openmetrics-text")
                && !parts.any(|part| matches!(&*part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        });
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// What is collected, in this format.
pub(super) fn encode(figures: impl Collector, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut written = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// Writes families of metrics, each with its help and one line or more.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

/// One line of a family: its labels, and the value.
pub(super) type Line<'a, L, V> = (&'a [(&'static str, L)], V);

/// No labels.
pub(super) const PLAIN: &[(&str, &str)] = &[];

impl Families<'_> {
    /// A family of numbers that only grow; `_total` is added to its name.
    pub(super) fn counters<'l, L: EncodeLabelValue + 'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = Line<'l, L, V>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        lines.into_iter().try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, V, f64>(&value, None)
        })
    }

    /// A family of numbers that rise and fall.
    pub(super) fn gauges<'l, L: EncodeLabelValue + 'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = Line<'l, L, V>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        lines.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// How times are distributed, in seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, times: &Distribution) -> fmt::Result {
        let mut buckets: Vec<_> =
            times.buckets().map(|(bound, count)| (bound.as_secs_f64(), count)).collect();
        let within: u64 = buckets.iter().map(|(_, count)| count).sum();
        buckets.push((f64::INFINITY, times.count() - within));
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &buckets, None)
    }

    /// A single number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.counters(name, help, [(PLAIN, value)])
    }

    /// A single number that rises and falls.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [(PLAIN, value)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                          q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let cases = [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/plain;version=0.0.4"), Format::Prometheus),
            (Some(prometheus), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (Some("application/openmetrics-text; q=0, text/plain"), Format::Prometheus),
        ];
        for (accept, format) in cases {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(Format::wanted(&headers), format, "{accept:?}");
        }
    }
}
