// Writes what Go's regexp package makes of the patterns it reads, a JSON string a line:
//
//	go run regexp.go NAMES.json < PATTERNS > regexp.jsonl
//
// NAMES.json is an array of the names each pattern is tried on; a digit a name says whether it matched.
// A pattern that Go refuses has no digits.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
)

func main() {
	file, err := os.ReadFile(os.Args[1])
	check(err)
	var names []string
	check(json.Unmarshal(file, &names))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var pattern string
		check(json.Unmarshal(lines.Bytes(), &pattern))
		matches := ""
		if re, err := regexp.Compile(pattern); err == nil {
			for _, name := range names {
				if re.MatchString(name) {
					matches += "1"
				} else {
					matches += "0"
				}
			}
		}
		fmt.Printf("[%s,%q]\n", lines.Bytes(), matches)
	}
	check(lines.Err())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
