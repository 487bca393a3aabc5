package scrape

import (
	"context"

	"github.com/prometheus/common/expfmt"
)

// Exposition is what a Scrape makes of a body, without the request.
func Exposition(ctx context.Context, body []byte, format expfmt.FormatType, cfg Config) ([]byte, error) {
	cfg.setDefaults()
	s := Scraper{cfg: cfg, body: buffer{body}}
	exposition, err := s.exposition(ctx, expfmt.NewFormat(format))
	if err != nil {
		return nil, err
	}
	return exposition, nil
}
