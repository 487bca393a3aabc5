// Package metricsdoc compares docs/metrics.md with recorded expositions of real
// engines and with what the plugin exports. It has nothing but tests.
package metricsdoc
