//! What operators ask: by subject, one file each.

use protocol::reply::Refusal;
use protocol::request::RequestCode;
use remoting::outbox::Outbox;

use crate::dispatch::Context;

/// Serves one request of an operator; what is not served is said to be so.
pub fn serve(context: &Context<'_>, code: RequestCode, out: &mut Outbox) {
    out.now.refuse(context.to, &Refusal::unsupported(code.to_wire()));
}
