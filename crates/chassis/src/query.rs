//! The query of a request, read into a type.

use std::{
    future::{Ready, ready},
    ops::Deref,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use notifyx_wire::{json::Unfit, query};
use serde::de::DeserializeOwned;

use crate::Failure;

/// Like actix' `web::Query`, and what does not fit is told by its name.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T> Query<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Query<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Failure;
    type Future = Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(query::read(request.query_string()).map(Self).map_err(|why| unfit(&why)))
    }
}

fn unfit(why: &Unfit) -> Failure {
    Failure::made(400, "query_invalid", format!("the query is not what this path takes: {why}"))
}
