//! Which text format a reader of `/metrics` gets.

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// How much a reader wants a format, in thousandths, as HTTP counts it.
type Quality = u32;

const MOST: Quality = 1000;

impl Format {
    /// The format for a request whose header `Accept` has these values, joined by
    /// commas. It is OpenMetrics only if version 1 of that is named, and wanted no less
    /// than plain text.
    pub fn accepted(accept: &str) -> Format {
        let mut open = 0;
        let mut text = 0;
        for range in accept.split(',') {
            let (name, quality) = media_range(range);
            match name {
                Some(Format::OpenMetrics) => open = quality.max(open),
                Some(Format::Text) => text = quality.max(text),
                None => {}
            }
        }

        if open > 0 && open >= text {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// What the header `Content-Type` says of this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What one part of `Accept` asks for, and how much.
fn media_range(range: &str) -> (Option<Format>, Quality) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let mut format = if name.eq_ignore_ascii_case("application/openmetrics-text") {
        Some(Format::OpenMetrics)
    } else if name.eq_ignore_ascii_case("text/plain") {
        Some(Format::Text)
    } else {
        None
    };

    let mut quality = MOST;
    for parameter in parts {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let is_other_version = match format {
            Some(Format::OpenMetrics) => !matches!(value, "1" | "1.0" | "1.0.0"),
            _ => value != "0.0.4",
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => quality = thousandths(value),
            "version" if is_other_version => format = None,
            _ => {}
        }
    }
    (format, quality)
}

/// A number that is malformed asks for nothing.
fn thousandths(value: &str) -> Quality {
    let number: f64 = value.parse().unwrap_or(0.0);
    (number.clamp(0.0, 1.0) * f64::from(MOST)) as Quality
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Prometheus 2.42 and 3.5 send.
    const OLD: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const NEW: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,\
        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

    #[test]
    fn openmetrics_goes_to_those_that_name_it() {
        for accept in [
            OLD,
            NEW,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.1",
            "text/plain;q=0.3, application/openmetrics-text;q=0.3",
        ] {
            assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn all_others_get_plain_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=NaN",
            "application/openmetrics-text;q=0.2, text/plain;q=0.7",
            ";;;,=,q=1",
        ] {
            assert_eq!(Format::accepted(accept), Format::Text, "{accept}");
        }
    }
}
