//! The JSON of a body, in and out.

use std::{future::Future, ops::Deref, pin::Pin};

use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder, body::EitherBody, dev::Payload, web};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::Failure;

/// Like actix' `web::Json`, within the same limits, but a request's body must be an object: serde would take an array for
/// a struct, its fields in the order in which they happen to stand.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T> Json<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned> FromRequest for Json<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = web::Json::<Box<RawValue>>::from_request(request, payload);
        Box::pin(async move { Ok(Self(object(&body.await?)?)) })
    }
}

impl<T: Serialize> Responder for Json<T> {
    type Body = EitherBody<String>;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<Self::Body> {
        web::Json(self.0).respond_to(request)
    }
}

/// The body of a route that people call by hand: an object like [`Json`]'s, whatever its content type says (`curl -d` calls it
/// a form), or `None` where there is none at all (`curl -X POST`).
#[derive(Clone, Debug)]
pub struct ByHand<T>(pub Option<T>);

impl<T> ByHand<T> {
    /// Where a body must be.
    pub fn required(self) -> Result<T, Failure> {
        self.0.ok_or_else(no_object)
    }
}

impl<T: DeserializeOwned> FromRequest for ByHand<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = web::Bytes::from_request(request, payload);
        Box::pin(async move {
            let body = body.await?;
            let body = body.trim_ascii();
            if body.is_empty() {
                return Ok(Self(None));
            }
            let raw: &RawValue = serde_json::from_slice(body).map_err(|error| unfit(&error))?;
            Ok(Self(Some(object(raw)?)))
        })
    }
}

fn object<T: DeserializeOwned>(body: &RawValue) -> Result<T, Failure> {
    if !body.get().starts_with('{') {
        return Err(no_object());
    }
    serde_json::from_str(body.get()).map_err(|error| unfit(&error))
}

fn no_object() -> Failure {
    Failure::made(400, "body_invalid", "the body must be a JSON object")
}

/// What is sent is not what the path takes.
pub(crate) fn unfit(error: &serde_json::Error) -> Failure {
    Failure::made(400, "body_invalid", format!("the body is not what this path takes: {error}"))
}
