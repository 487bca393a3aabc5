// Package metricsdoc holds docs/metrics.md against recorded pages of real
// engines and against what the plugin exports. There is nothing in it but
// tests.
package metricsdoc
