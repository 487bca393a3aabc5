package sink

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// Points counts the data points of an encoded ExportMetricsServiceRequest that belong to metrics whose name starts with
// prefix.
func Points(request []byte, prefix string) (points int, err error) {
	const resourceMetrics, scopeMetrics, metrics = 1, 2, 2
	err = each(request, resourceMetrics, func(resource []byte) error {
		return each(resource, scopeMetrics, func(scope []byte) error {
			return each(scope, metrics, func(metric []byte) error {
				n, err := metricPoints(metric, prefix)
				points += n
				return err
			})
		})
	})
	return points, err
}

func metricPoints(metric []byte, prefix string) (points int, err error) {
	const name, firstData, lastData, dataPoints = 1, 5, 11, 1 // gauge is 5, sum 7, histogram 9, exponential histogram 10, summary 11
	wanted := prefix == ""
	for number := protowire.Number(firstData); number <= lastData; number++ {
		err := each(metric, number, func(data []byte) error {
			return each(data, dataPoints, func([]byte) error { points++; return nil })
		})
		if err != nil {
			return 0, err
		}
	}
	err = each(metric, name, func(value []byte) error {
		wanted = bytes.HasPrefix(value, []byte(prefix))
		return nil
	})
	if !wanted {
		points = 0
	}
	return points, err
}

// Samples counts the samples of an encoded remote-write request whose series' name starts with prefix.
func Samples(request []byte, prefix string) (samples int, err error) {
	const timeseries, labels, labelName, labelValue, sample = 1, 1, 1, 2, 2
	err = each(request, timeseries, func(series []byte) error {
		wanted := false
		err := each(series, labels, func(label []byte) error {
			isName := false
			if err := each(label, labelName, func(name []byte) error {
				isName = string(name) == "__name__"
				return nil
			}); err != nil || !isName {
				return err
			}
			return each(label, labelValue, func(value []byte) error {
				wanted = bytes.HasPrefix(value, []byte(prefix))
				return nil
			})
		})
		if err != nil || !wanted {
			return err
		}
		return each(series, sample, func([]byte) error { samples++; return nil })
	})
	return samples, err
}

// each calls f for every occurrence of a field of length-delimited type.
func each(b []byte, number protowire.Number, f func([]byte) error) error {
	for len(b) > 0 {
		got, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if got != number || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(got, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
