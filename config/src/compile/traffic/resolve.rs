//! Resolves each field of traffic policy from the layers that may set it, the most specific first. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Layer;
use crate::compile::effective::{Effective, Origin};
use crate::limits::traffic as limits;
use crate::resources::{
    AlgorithmName, FailoverSpec, RateLimitBy, RateLimitSpec, Size, Span, TrafficSpec,
};
use crate::table::{
    Backoff, Balance, Breaker, Concurrency, Failover, Fault, FaultAbort, FaultDelay, Hedge, Mode,
    Overrides, RateLimit, RequestTraffic, Retry, RetryBudget, ServiceName, SuccessRate, Timeouts,
    Traffic,
};

/// Takes each field from the first layer that has it, and notes that layer.
pub(super) struct Resolver<'l, 'a> {
    routes: &'l [Layer<'a>],
    wider: &'l [Layer<'a>],
    adaptive: Mode,
    /// Kept only while explaining.
    reasons: Option<Vec<Effective>>,
}

impl<'l, 'a> Resolver<'l, 'a> {
    /// Layers of the route, if there is one, and of its Service and beyond, the most specific first.
    /// `adaptive` is the mode of the adaptive limit if no layer sets it.
    pub(super) fn new(routes: &'l [Layer<'a>], wider: &'l [Layer<'a>], adaptive: Mode) -> Self {
        Self {
            routes,
            wider,
            adaptive,
            reasons: None,
        }
    }

    /// The layer from which `resolve` took each field.
    pub(super) fn explain(mut self, resolve: impl FnOnce(&mut Self)) -> Vec<Effective> {
        self.reasons = Some(Vec::new());
        resolve(&mut self);
        self.reasons.unwrap_or_default()
    }

    /// All values for a port.
    pub(super) fn port(&mut self, service: &ServiceName, port: u16) -> Traffic {
        let request = Arc::new(self.request());
        self.traffic(request, service, port)
    }

    /// All values for the requests of a route.
    pub(super) fn rule(&mut self) -> RequestTraffic {
        let request = self.request();
        RequestTraffic {
            rate_limits: self.rate_limits(self.routes).iter().map(compiled).collect(),
            ..request
        }
    }

    fn request(&mut self) -> RequestTraffic {
        let default = RequestTraffic::default();
        RequestTraffic {
            timeouts: self.timeouts(),
            retry: self.retry(default.retry),
            hedge: self.hedge(),
            fault: self.fault(),
            priority: self.value("priority", default.priority, |says| says.priority),
            rate_limits: Vec::new(),
            overrides: Overrides {
                callers: self.value("overrides.callers", Vec::new(), |says| {
                    says.overrides.callers.clone()
                }),
            },
        }
    }

    fn timeouts(&mut self) -> Timeouts {
        let idle = Origin::Setting("timeouts.stream_idle (5m)");
        let some = |span: Span| (!span.0.is_zero()).then_some(span.0);
        Timeouts {
            request: self
                .optional("timeouts.request", Origin::Default, |says| {
                    says.timeouts.request.map(Span::canonical)
                })
                .and_then(some),
            backend_request: self
                .optional("timeouts.backendRequest", Origin::Default, |says| {
                    says.timeouts.backend_request.map(Span::canonical)
                })
                .and_then(some),
            stream_idle: self
                .optional("timeouts.streamIdle", idle, |says| {
                    says.timeouts.stream_idle.map(Span::canonical)
                })
                .and_then(some),
        }
    }

    fn retry(&mut self, default: Retry) -> Retry {
        Retry {
            attempts: self.value("retry.attempts", default.attempts, |says| {
                says.retry.attempts
            }),
            reset_before_response: self.value(
                "retry.resetBeforeResponse",
                default.reset_before_response,
                |says| says.retry.reset_before_response,
            ),
            codes: self.value("retry.codes", default.codes, |says| {
                says.retry.codes.clone()
            }),
            grpc_codes: self.value("retry.grpcCodes", default.grpc_codes, |says| {
                says.retry.grpc_codes.clone()
            }),
            non_idempotent: self.value("retry.nonIdempotent", default.non_idempotent, |says| {
                says.retry.non_idempotent
            }),
            respect_retry_after: self.value(
                "retry.respectRetryAfter",
                default.respect_retry_after,
                |says| says.retry.respect_retry_after,
            ),
            of_rule: default.of_rule,
            backoff: self.backoff(default.backoff),
            body_replay: self
                .value("retry.bodyReplay", Size(default.body_replay), |says| {
                    says.retry.body_replay
                })
                .0,
        }
    }

    fn backoff(&mut self, default: Backoff) -> Backoff {
        let base = self.span("retry.backoff.base", default.base, |says| {
            says.retry.backoff.base
        });
        let max = self.span("retry.backoff.max", default.max, |says| {
            says.retry.backoff.max
        });
        // They may come from different policies.
        Backoff {
            base,
            max: max.max(base),
            at_least: default.at_least,
        }
    }

    fn hedge(&mut self) -> Option<Hedge> {
        let after = self.optional("hedge.after", Origin::Default, |says| says.hedge.after);
        let attempts = self.value("hedge.attempts", limits::HEDGE_ATTEMPTS, |says| {
            says.hedge.attempts
        });
        let non_idempotent = self.value("hedge.nonIdempotent", false, |says| {
            says.hedge.non_idempotent
        });
        Some(Hedge {
            after: after.filter(|_| attempts > 0)?,
            attempts,
            non_idempotent,
        })
    }

    fn fault(&mut self) -> Fault {
        let delay = self.optional("fault.delay", Origin::Default, |says| {
            says.fault.delay.clone()
        });
        let abort = self.optional("fault.abort", Origin::Default, |says| {
            says.fault.abort.clone()
        });
        Fault {
            delay: delay
                .filter(|delay| !delay.percent.is_zero())
                .map(|delay| FaultDelay {
                    percent: delay.percent,
                    duration: delay.duration.0,
                }),
            abort: abort
                .filter(|abort| !abort.percent.is_zero())
                .and_then(|abort| {
                    Some(FaultAbort {
                        percent: abort.percent,
                        with: abort.with()?,
                    })
                }),
        }
    }

    fn traffic(
        &mut self,
        request: Arc<RequestTraffic>,
        service: &ServiceName,
        port: u16,
    ) -> Traffic {
        let default = Traffic::default();
        let limits = self.rate_limits(self.wider);
        let (by_caller, by_service): (Vec<_>, Vec<_>) = limits
            .into_iter()
            .partition(|limit| limit.by == Some(RateLimitBy::Caller));
        Traffic {
            request,
            balance: self.balance(default.balance),
            retry_budget: self.retry_budget(default.retry_budget),
            breaker: self.breaker(default.breaker),
            failover: self
                .optional("failover", Origin::Default, |says| says.failover.clone())
                .map(|to| failover(&to, service, port)),
            concurrency: self.concurrency(default.concurrency),
            rate_limits: by_service.iter().map(compiled).collect(),
            caller_rate_limits: by_caller.iter().map(compiled).collect(),
        }
    }

    fn balance(&mut self, default: Balance) -> Balance {
        // The key belongs to its algorithm, whichever layer chose that.
        let chosen = self
            .layers()
            .find_map(|layer| Some((layer.says.balance.chosen()?, layer)));
        let (algorithm, layer) = match chosen {
            Some((algorithm, layer)) => (algorithm, Some(layer)),
            None => (default.algorithm, None),
        };
        let name = layer.and_then(|layer| layer.says.balance.algorithm);
        let name = name.unwrap_or(AlgorithmName::PeakEwma);
        self.note("balance.algorithm", &name, layer, Origin::Default);
        let key = layer.and_then(|layer| layer.says.balance.key.as_ref());
        self.note("balance.key", &key, layer, Origin::Default);
        Balance {
            algorithm,
            slow_start: self.span("balance.slowStart", default.slow_start, |says| {
                says.balance.slow_start
            }),
        }
    }

    fn retry_budget(&mut self, default: RetryBudget) -> RetryBudget {
        RetryBudget {
            percent: self.value("retryBudget.percent", default.percent, |says| {
                says.retry_budget.percent
            }),
            interval: self.span("retryBudget.interval", default.interval, |says| {
                says.retry_budget.interval
            }),
            retries_per_second_min: self.value(
                "retryBudget.minRetriesPerSecond",
                default.retries_per_second_min,
                |says| says.retry_budget.min_retries_per_second,
            ),
        }
    }

    fn breaker(&mut self, default: Breaker) -> Breaker {
        let mode = self.value("breaker.mode", default.mode, |says| says.breaker.mode);
        let consecutive_failures = self.value(
            "breaker.consecutiveFailures",
            default.consecutive_failures,
            |says| says.breaker.consecutive_failures,
        );
        let success_rate = self.success_rate(default.success_rate);
        let base = self.span("breaker.ejection.base", default.ejection_base, |says| {
            says.breaker.ejection.base
        });
        let max = self.span("breaker.ejection.max", default.ejection_max, |says| {
            says.breaker.ejection.max
        });
        Breaker {
            mode,
            consecutive_failures,
            success_rate,
            ejection_base: base,
            // They may come from different policies.
            ejection_max: max.max(base),
            ejected_percent_max: self.value(
                "breaker.maxEjectedPercent",
                default.ejected_percent_max,
                |says| says.breaker.max_ejected_percent,
            ),
            panic_threshold: self.value(
                "breaker.panicThreshold",
                default.panic_threshold,
                |says| says.breaker.panic_threshold,
            ),
        }
    }

    fn success_rate(&mut self, default: SuccessRate) -> SuccessRate {
        SuccessRate {
            percent: self.value("breaker.successRate.percent", default.percent, |says| {
                says.breaker.success_rate.percent
            }),
            requests_min: self.value(
                "breaker.successRate.minRequests",
                default.requests_min,
                |says| says.breaker.success_rate.min_requests,
            ),
            interval: self.span("breaker.successRate.interval", default.interval, |says| {
                says.breaker.success_rate.interval
            }),
        }
    }

    fn concurrency(&mut self, default: Concurrency) -> Concurrency {
        let setting = Origin::Setting("concurrency.in_flight_max (1024)");
        Concurrency {
            max: self.optional("concurrency.max", setting, |says| says.concurrency.max),
            mode: self.value("concurrency.mode", default.mode, |says| {
                says.concurrency.mode
            }),
            adaptive: self.value("concurrency.adaptive", self.adaptive, |says| {
                says.concurrency.adaptive
            }),
            priority: self.optional("concurrency.priority", Origin::Default, |says| {
                says.concurrency.priority.clone()
            }),
        }
    }

    /// The limits of a route do not come from its Service, whose sidecars enforce their own.
    fn rate_limits(&mut self, layers: &'l [Layer<'a>]) -> Vec<RateLimitSpec> {
        let layer = layers.iter().find(|layer| layer.says.rate_limits.is_some());
        let limits = layer.and_then(|layer| layer.says.rate_limits.clone());
        let limits = limits.unwrap_or_default();
        self.note("rateLimits", &limits, layer, Origin::Default);
        limits
    }

    fn layers(&self) -> impl Iterator<Item = &'l Layer<'a>> + use<'l, 'a> {
        self.routes.iter().chain(self.wider)
    }

    fn span(
        &mut self,
        field: &'static str,
        default: Duration,
        read: impl Fn(&TrafficSpec) -> Option<Span>,
    ) -> Duration {
        let canonical = |says: &TrafficSpec| read(says).map(Span::canonical);
        self.value(field, Span::of(default), canonical).0
    }

    fn value<T: Serialize>(
        &mut self,
        field: &'static str,
        default: T,
        read: impl Fn(&TrafficSpec) -> Option<T>,
    ) -> T {
        let (found, layer) = match self.first(read) {
            Some((found, layer)) => (found, Some(layer)),
            None => (default, None),
        };
        self.note(field, &found, layer, Origin::Default);
        found
    }

    /// A field that may have no value; `absent` says what holds then.
    fn optional<T: Serialize>(
        &mut self,
        field: &'static str,
        absent: Origin,
        read: impl Fn(&TrafficSpec) -> Option<T>,
    ) -> Option<T> {
        let (found, layer) = self.first(read).unzip();
        self.note(field, &found, layer, absent);
        found
    }

    fn first<T>(&self, read: impl Fn(&TrafficSpec) -> Option<T>) -> Option<(T, &'l Layer<'a>)> {
        self.layers()
            .find_map(|layer| Some((read(&layer.says)?, layer)))
    }

    fn note<T: Serialize>(
        &mut self,
        field: &'static str,
        value: &T,
        layer: Option<&Layer<'a>>,
        absent: Origin,
    ) {
        let Some(reasons) = &mut self.reasons else {
            return;
        };
        reasons.push(Effective {
            field,
            // Text keys, finite numbers: this cannot fail.
            value: serde_json::to_value(value).unwrap_or(Value::Null),
            from: layer.map_or(absent, |layer| layer.origin.clone()),
        });
    }
}

fn compiled(limit: &RateLimitSpec) -> RateLimit {
    RateLimit {
        requests: limit.requests,
        per: limit.per.0,
        burst: limit.burst.unwrap_or(limit.requests),
        mode: limit.mode.unwrap_or(Mode::Enforce),
    }
}

fn failover(to: &FailoverSpec, from: &ServiceName, port: u16) -> Failover {
    Failover {
        service: to.service(&from.namespace),
        port: to.port.unwrap_or(port),
    }
}
