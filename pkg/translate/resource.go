package translate

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"otelmetricsplugin/internal/otlp"
)

const (
	// targetInfo is the family whose labels are resource attributes as they
	// stand: rule 21.
	targetInfo = "target_info"
	// engineInfo is the family in which a Docker Engine says what it is.
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

// describe makes the resource anew if the families of the exposition say another one
// than the exposition before: at the engine's boot they come late, after an upgrade
// they differ. An exposition that says nothing of it leaves what is known.
func (t *Translator) describe(engine, target []frame) {
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, frames := range [][]frame{engine, target} {
		for _, f := range frames {
			_, _ = h.Write(t.bytes(f.body))
		}
	}
	sum := h.Sum64()
	if sum == t.resourceHash {
		return
	}
	t.resourceHash = sum
	if said := t.resourceOf(engine, target); len(said) > 0 {
		t.resource = t.mergeResource(said)
	}
}

// mergeResource returns the encoded resource: of equal keys, Config.Resource
// wins over what the exposition says, which wins over Config.Defaults.
func (t *Translator) mergeResource(said []attribute.KeyValue) []byte {
	set, _ := attribute.NewSetWithFiltered(slices.Concat(t.cfg.Defaults, said, t.cfg.Resource), attribute.KeyValue.Valid)
	return otlp.Resource(set.ToSlice())
}

// resourceOf returns what the exposition says of the process that it came from.
// target_info, which is there for nothing else, wins over the engine's own
// family.
func (t *Translator) resourceOf(engine, target []frame) []attribute.KeyValue {
	values := make(map[string]string)
	t.eachInfoLabel(engine, func(name, value string) {
		if name == "architecture" {
			if arch, ok := hostArch[value]; ok {
				value = arch
			}
		}
		if key, ok := engineAttributes[name]; ok {
			values[key] = value
		}
	})
	t.eachInfoLabel(target, func(name, value string) {
		if !isSDKDefault(name, value) {
			values[name] = value
		}
	})
	attrs := make([]attribute.KeyValue, 0, min(len(values), maxResource))
	size := 0
	for _, key := range slices.SortedFunc(maps.Keys(values), engineFirst) {
		size += len(key) + len(values[key])
		if len(attrs) == maxResource || size > maxResourceBytes {
			break
		}
		attrs = append(attrs, attribute.String(key, values[key]))
	}
	return attrs
}

// eachInfoLabel calls f with the labels of the metrics of info families.
func (t *Translator) eachInfoLabel(frames []frame, f func(name, value string)) {
	left := maxInfoLabels
	for _, frame := range frames {
		for family := (fields{rest: t.bytes(frame.body)}); family.next(); {
			if family.isBytes(familyMetric) {
				eachLabel(family.bytes, func(name, value []byte) bool {
					if left--; left < 0 {
						return false
					}
					if len(name) > 0 && len(value) > 0 {
						f(validUTF8(name), validUTF8(value))
					}
					return true
				})
			}
		}
	}
}

// A resource is repeated in every request of an exposition that is split, so
// what it may put there is bounded. An honest one has a few hundred bytes.
const (
	maxInfoLabels    = 4 << 10 // that are looked at
	maxResource      = 128     // attributes
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
	switch key {
	case "service.instance.id", "service.version", "host.arch", "os.type", "os.description", "os.version":
		return true
	default:
		return false
	}
}

// isSDKDefault reports whether a label of target_info is what an OpenTelemetry
// SDK says of itself where nothing else was configured, as in engines 26.0 and
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
