//! The JSON of a body, in and out.

use std::{future::Future, ops::Deref, pin::Pin};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse, Responder, body::EitherBody, dev::Payload,
    http::header::CONTENT_LENGTH, web,
};
use notifyx_wire::json::{self, Unfit};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Failure, door::BODY_BYTES_MAX};

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
            let raw: &RawValue = serde_json::from_slice(body).map_err(|error| unfit(&Unfit::syntax(&error)))?;
            Ok(Self(Some(object(raw)?)))
        })
    }
}

/// The body of a route that reads its JSON itself, item by item: as it came, and said to be JSON. Without [`Unparsed::max`]
/// among the route's app data it is bounded as the others are.
#[derive(Clone, Debug)]
pub struct Unparsed(pub web::Bytes);

/// The most bytes of an [`Unparsed`] body.
#[derive(Clone, Copy, Debug)]
pub struct UnparsedMax(usize);

impl Unparsed {
    /// `web::resource("/events").app_data(Unparsed::max(8 << 20))`.
    pub fn max(bytes: usize) -> UnparsedMax {
        UnparsedMax(bytes)
    }
}

impl FromRequest for Unparsed {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let max = request.app_data::<UnparsedMax>().map_or(BODY_BYTES_MAX, |max| max.0);
        let is_json = request.mime_type().ok().flatten().is_some_and(|mime| {
            (mime.type_() == "application" && mime.subtype() == "json") || mime.suffix().is_some_and(|is| is == "json")
        });
        let said = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let body = web::Payload::from_request(request, payload);
        Box::pin(async move {
            if !is_json {
                return Err(not_json().into());
            }
            if said.is_some_and(|said| said > max) {
                return Err(too_large(max).into());
            }
            match body.await?.to_bytes_limited(max).await {
                Ok(Ok(body)) => Ok(Self(body)),
                Ok(Err(error)) => {
                    Err(Failure::made(400, "body_invalid", format!("the body could not be read: {error}")).into())
                }
                Err(_) => Err(too_large(max).into()),
            }
        })
    }
}

fn object<T: DeserializeOwned>(body: &RawValue) -> Result<T, Failure> {
    if !body.get().starts_with('{') {
        return Err(no_object());
    }
    json::read(body.get()).map_err(|why| unfit(&why))
}

fn no_object() -> Failure {
    Failure::made(400, "body_invalid", "the body must be a JSON object")
}

pub(crate) fn not_json() -> Failure {
    Failure::made(415, "content_type_invalid", "send `Content-Type: application/json`")
}

pub(crate) fn too_large(bytes_max: usize) -> Failure {
    Failure::made(413, "body_too_large", format!("the body has more than {bytes_max} bytes"))
}

/// What is sent is not what the path takes.
pub(crate) fn unfit(why: &Unfit) -> Failure {
    Failure::made(400, "body_invalid", format!("the body is not what this path takes: {why}"))
}
