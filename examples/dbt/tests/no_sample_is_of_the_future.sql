SELECT * FROM {{ ref('training_samples') }}
WHERE taken_at > seen_at
