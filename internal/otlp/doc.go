// Package otlp is the one home of OTLP's wire format: it writes
// ExportMetricsServiceRequests field by field, cuts them into parts that a
// receiver takes, and shows them as OTLP/JSON.
//
// It knows nothing of where data points come from or where requests go. Field
// numbers are those of opentelemetry-proto v1; a test compares them with its
// descriptors.
package otlp
