//! Variables that kubelet makes: each pod is told of every Service of its namespace, in variables made of
//! the Service's name, and a Service named `trueup-gateway` makes `TRUEUP_GATEWAY_SERVICE_HOST`.
//!
//! It knows kubelet's forms and nothing else: what has another form is a setting or a mistake.

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// What may follow the port and its protocol.
const OF_A_PORT: [&str; 3] = ["PROTO", "PORT", "ADDR"];

/// True of `…_SERVICE_HOST`, `…_SERVICE_PORT[_<name>]`, `…_PORT_<n>_<protocol>[_PROTO|_PORT|_ADDR]`, and of
/// `…_PORT` with kubelet's kind of value: a plain number there is somebody's idea of a setting.
pub fn is_service_link(variable: &str, value: &str) -> bool {
    let is_of = |suffix: &str| variable.strip_suffix(suffix).is_some_and(is_service);
    is_of("_SERVICE_HOST")
        || is_of("_SERVICE_PORT")
        || is_named_port(variable)
        || is_numbered_port(variable)
        || (is_of("_PORT") && value.contains("://"))
}

/// A Service's name, in capitals and with `_` for `-`: it neither begins nor ends with that.
fn is_service(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('_')
        && !name.ends_with('_')
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_named_port(variable: &str) -> bool {
    variable
        .split_once("_SERVICE_PORT_")
        .is_some_and(|(service, port)| is_service(service) && is_service(port))
}

fn is_numbered_port(variable: &str) -> bool {
    variable.match_indices("_PORT_").any(|(at, found)| {
        let (service, rest) = (&variable[..at], &variable[at + found.len()..]);
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|n| n.parse::<u16>().is_ok());
        let protocol = parts.next().is_some_and(|p| PROTOCOLS.contains(&p));
        let detail = parts.next().is_none_or(|d| OF_A_PORT.contains(&d));
        is_service(service) && number && protocol && detail && parts.next().is_none()
    })
}
