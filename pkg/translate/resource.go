package translate

import (
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
)

const (
	// targetInfo is the family whose labels are resource attributes as they
	// stand: rule 21.
	targetInfo = "target_info"
	// engineInfo is the family by which a Docker Engine tells what it is.
	engineInfo = "engine_daemon_engine_info"
)

// engineAttributes are the resource attributes, by the labels of engineInfo.
var engineAttributes = map[string]string{
	"daemon_id":    "service.instance.id",
	"version":      "service.version",
	"architecture": "host.arch",
	"os_type":      "os.type",
	"os":           "os.description",
	"os_version":   "os.version",
}

// hostArch maps what uname and the engine call an architecture to the values
// of host.arch in the semantic conventions.
var hostArch = map[string]string{
	"x86_64": "amd64", "i386": "x86", "i686": "x86",
	"aarch64": "arm64", "armv6l": "arm32", "armv7l": "arm32",
	"ppc64le": "ppc64",
}

// resourceOf returns what the page says of the process that it came from,
// sorted by key. target_info, which is there for nothing else, wins over the
// engine's own family.
func resourceOf(families []*dto.MetricFamily) []attribute.KeyValue {
	values := make(map[string]string)
	for _, mf := range families {
		if mf.GetName() != engineInfo {
			continue
		}
		eachLabel(mf, func(name, value string) {
			if name == "architecture" {
				if arch, ok := hostArch[value]; ok {
					value = arch
				}
			}
			if key, ok := engineAttributes[name]; ok {
				values[key] = value
			}
		})
	}
	for _, mf := range families {
		if mf.GetName() == targetInfo {
			eachLabel(mf, func(name, value string) {
				if !isSDKDefault(name, value) {
					values[name] = value
				}
			})
		}
	}
	if len(values) == 0 {
		return nil
	}
	attrs := make([]attribute.KeyValue, 0, min(len(values), maxResource))
	size := 0
	for _, key := range slices.SortedFunc(maps.Keys(values), engineFirst) {
		size += len(key) + len(values[key])
		if len(attrs) == maxResource || size > maxResourceBytes {
			break
		}
		attrs = append(attrs, attribute.String(key, values[key]))
	}
	slices.SortFunc(attrs, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return attrs
}

// A resource is repeated in every request of a page that is split, so what a
// page may put into it is bounded. An honest one has a few hundred bytes.
const (
	maxResource      = 128 // attributes
	maxResourceBytes = 16 << 10
)

// engineFirst orders the keys of a resource: what the engine says of itself is
// the last to go.
func engineFirst(a, b string) int {
	if x, y := isEngine(a), isEngine(b); x != y {
		if x {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func isEngine(key string) bool {
	for _, k := range engineAttributes {
		if k == key {
			return true
		}
	}
	return false
}

// isSDKDefault reports whether a label of target_info is what an OpenTelemetry
// SDK says of itself where nobody told it anything, as in engines 26.0 and
// 26.1. To a backend that writes a dot as an underscore, service_name is
// service.name, and unknown_service would stand beside or in place of the
// service's real name.
func isSDKDefault(name, value string) bool {
	switch name {
	case "service_name":
		return value == "unknown_service" || strings.HasPrefix(value, "unknown_service:")
	case "telemetry_sdk_language", "telemetry_sdk_name", "telemetry_sdk_version":
		return true
	default:
		return false
	}
}

// eachLabel calls f with the labels of the metrics of an info family.
func eachLabel(mf *dto.MetricFamily, f func(name, value string)) {
	for _, m := range mf.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() != "" && l.GetValue() != "" {
				f(validUTF8(l.GetName()), validUTF8(l.GetValue()))
			}
		}
	}
}
