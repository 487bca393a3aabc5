package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Decode reads the families of an exposition.
func Decode(r io.Reader, format expfmt.Format) ([]*dto.MetricFamily, error) {
	var families []*dto.MetricFamily
	for decoder := expfmt.NewDecoder(r, format); ; {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return families, nil
		} else if err != nil {
			return nil, err
		}
		families = append(families, family)
	}
}

// Client gets one page over and over.
type Client struct {
	url  string
	http http.Client
}

// NewClient returns a client of unix:///path/of/socket, whose page is /metrics, or of an http:// URL.
func NewClient(url string) *Client {
	c := &Client{url: url}
	if path, ok := strings.CutPrefix(url, "unix://"); ok {
		c.url = "http://socket/metrics"
		c.http.Transport = &http.Transport{
			DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		}
	} else {
		c.http.Transport = &http.Transport{DisableCompression: true}
	}
	return c
}

// Get asks for delimited protobuf and hands the answer's body to read.
func (c *Client) Get(ctx context.Context, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", string(formatProtobuf))
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK || expfmt.ResponseFormat(response.Header) != formatProtobuf {
		return fmt.Errorf("%s answered %s, %s", c.url, response.Status, response.Header.Get("Content-Type"))
	}
	return read(response.Body)
}

// Families gets the page and decodes it.
func (c *Client) Families(ctx context.Context) (families []*dto.MetricFamily, err error) {
	err = c.Get(ctx, func(r io.Reader) error {
		families, err = Decode(r, formatProtobuf)
		return err
	})
	return families, err
}
