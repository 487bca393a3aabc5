// Package feed keeps what arrives, in order, and lets a test wait for it.
package feed

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Feed is an append-only list that can be waited on. The zero value is empty
// and ready to use; all methods are safe for concurrent use.
type Feed[T any] struct {
	mu    sync.Mutex
	items []T
	grown chan struct{} // closed and replaced by each Append
}

// Append adds an item and wakes every waiter.
func (f *Feed[T]) Append(item T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items = append(f.items, item)
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// Len is the number of items so far: a mark for Since and Wait.
func (f *Feed[T]) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.items)
}

// Since returns a copy of the items from the mark on.
func (f *Feed[T]) Since(mark int) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.items[mark:])
}

// Wait returns the first item at or after the mark that matches, and the mark
// right behind it. It waits for the item to arrive until the context is done.
func (f *Feed[T]) Wait(ctx context.Context, mark int, match func(T) bool) (item T, next int, err error) {
	for {
		f.mu.Lock()
		if f.grown == nil {
			f.grown = make(chan struct{})
		}
		items, grown := f.items[mark:], f.grown
		f.mu.Unlock()
		for i, item := range items {
			if match(item) {
				return item, mark + i + 1, nil
			}
		}
		mark += len(items)
		select {
		case <-grown:
		case <-ctx.Done():
			return item, mark, fmt.Errorf("no match among %d items: %w", mark, context.Cause(ctx))
		}
	}
}
