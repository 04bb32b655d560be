//! What a service's description says of who may enter.

use notifyx_wire::header;
use utoipa::{
    Modify,
    openapi::{
        OpenApi,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// A user's token, or the cluster's secret: `modifiers(&Schemes)`. Routes name them `token` and `cluster`.
#[derive(Clone, Copy, Debug)]
pub struct Schemes;

impl Modify for Schemes {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let secret = ApiKeyValue::new(header::CLUSTER_SECRET);
        components.add_security_scheme("cluster", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    }
}
